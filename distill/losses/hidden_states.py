"""The hidden-state loss: layers of the student learn the hidden states of layers of the teacher.

A layer's hidden state is its output, before any final norm. A learned matrix may project the student's into the
teacher's space, as in FitNets (Romero et al. 2015) and TinyBERT (Jiao et al. 2020); without one they are compared as
they are, as in DistilBERT (Sanh et al. 2019). The convention is that of distill/losses/logit_loss.py: response
positions only, times the sample weight, to be divided by the sum of weights x tokens of the whole optimiser step. It is
the mean over the pairs of layers, so that their number does not change its size.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from transformers import PreTrainedModel

from distill.core.errors import UserError
from distill.params.train import HiddenLoss

PROJECTIONS = "layer_projections"  # submodule of a student in training: checkpoints have it, saved students do not
MIN_MEAN_SQUARE = 1e-12  # of a teacher's state


def cosine(student: torch.Tensor, teacher: torch.Tensor) -> torch.Tensor:
    """1 - the cosine of the angle between the two, [..., width] to [...], between 0 and 2."""
    return 1 - torch.cosine_similarity(student, teacher, dim=-1)


def mse(student: torch.Tensor, teacher: torch.Tensor) -> torch.Tensor:
    """The mean squared error over the teacher's mean square, [..., width] to [...]: 1 for a student that is all zeros.

    The residual stream grows from layer to layer, so that plain squares would be about the last layers only.
    """
    return (student - teacher).square().mean(-1) / teacher.square().mean(-1).clamp(min=MIN_MEAN_SQUARE)


DISTANCES: dict[str, Callable[[torch.Tensor, torch.Tensor], torch.Tensor]] = {"cosine": cosine, "mse": mse}


@dataclass(frozen=True)
class HiddenStateLoss:
    """Which layers learn from which, and when.

    For `hint_fraction` of the optimiser steps, the first ones, it is the whole loss (FitNets' first stage); then it is
    added, times `weight`, to the loss of the variant.
    """

    layers: list[int]  # of the student
    stored: list[int]  # for each of them, the position of its teacher among the stored layers
    distance: str
    weight: float
    hint_fraction: float

    def is_hint(self, step: int, steps: int) -> bool:
        """Whether it is the whole loss in this one, counted from 0, of so many optimiser steps."""
        return step < round(self.hint_fraction * steps)

    def factor(self, step: int, steps: int) -> float:
        """Its factor in this step."""
        return 1.0 if self.is_hint(step, steps) else self.weight

    def total(
        self, outputs: Sequence[torch.Tensor], teacher: torch.Tensor, weights: torch.Tensor, known: torch.Tensor
    ) -> torch.Tensor:
        """The sum over tokens of weight x loss, a scalar.

        `outputs` are the student's states (see `projected`), [tokens, teacher's width] for each of `layers`; `teacher`
        is [tokens, stored layers, teacher's width]; `weights` and `known` are [tokens]. A token that is not known,
        since no token of the teacher starts there, has no such loss.
        """
        distance = DISTANCES[self.distance]
        losses = [
            distance(output.float(), teacher[:, layer].float())
            for output, layer in zip(outputs, self.stored, strict=True)
        ]
        return (weights * torch.stack(losses).mean(0).masked_fill(~known, 0.0)).sum()


def prepare_hidden_loss(
    student: PreTrainedModel, section: HiddenLoss, stored: Sequence[int], width: int
) -> HiddenStateLoss:
    """The loss from states of the teacher's `width` of its layers `stored`; the student gets the projections it needs.

    They begin as the identity (of the first of the teacher's coordinates, where it has more), so that layers pruned
    from the teacher start where they are. Raises UserError where layers or widths do not fit.
    """
    config = student.config.get_text_config()
    layers = [layer for _, layer in section.layer_pairs]
    if max(layers) >= config.num_hidden_layers:
        raise UserError(
            f"train.distilled.hidden_loss.layer_pairs: the student's layers are 0 to {config.num_hidden_layers - 1}, "
            f"got {layers}."
        )
    if section.projection:
        matrices = [torch.nn.Linear(config.hidden_size, width, bias=False) for _ in layers]
        for matrix in matrices:
            torch.nn.init.eye_(matrix.weight)
        student.add_module(PROJECTIONS, torch.nn.ModuleList(matrices).to(student.device))
    elif config.hidden_size != width:
        raise UserError(
            f"train.distilled.hidden_loss.projection: must be true, since the student's states have "
            f"{config.hidden_size} values and the teacher's {width}."
        )
    positions = [stored.index(layer) for layer, _ in section.layer_pairs]
    return HiddenStateLoss(layers, positions, section.distance, section.weight, section.hint_fraction)


def projected(student: PreTrainedModel, outputs: Sequence[torch.Tensor]) -> list[torch.Tensor]:
    """The states of the student's layers, [tokens, width] each, in the teacher's space where there are projections."""
    if not hasattr(student, PROJECTIONS):
        return list(outputs)
    return [matrix(output) for matrix, output in zip(getattr(student, PROJECTIONS), outputs, strict=False)]


def remove_projections(student: PreTrainedModel) -> None:
    """Removes the projections, which are no part of the student."""
    if hasattr(student, PROJECTIONS):
        delattr(student, PROJECTIONS)
