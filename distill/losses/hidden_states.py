"""The loss of layers: chosen layers of the student learn the hidden states of chosen layers of the teacher.

A layer's hidden state is what it hands to the next, before any final norm. A learned matrix may carry the student's
into the teacher's space, as in FitNets (Romero et al. 2015) and TinyBERT (Jiao et al. 2020); without one they are
compared as they are, as in DistilBERT (Sanh et al. 2019). The convention is that of distill/losses/divergences.py:
response positions only, times the sample weight, to be divided by the sum of weights x tokens of the whole optimiser
step. It is the mean over the pairs of layers, so that their number does not change its size.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from distill.core.errors import UserError
from distill.params.train import LayerLoss as Settings

NAME = "layer_projections"  # of the submodule that a student has while it trains: checkpoints have it, students not
LEAST = 1e-12  # a mean square below which a teacher's state counts as this


def cosine(student: torch.Tensor, teacher: torch.Tensor) -> torch.Tensor:
    """1 - the cosine of the angle between the two, [..., width] to [...], between 0 and 2."""
    return 1 - torch.cosine_similarity(student, teacher, dim=-1)


def mse(student: torch.Tensor, teacher: torch.Tensor) -> torch.Tensor:
    """The mean squared error over the teacher's mean square, [..., width] to [...]: 1 for a student that is all zeros.

    The residual stream grows from layer to layer, so that plain squares would be about the last layers only.
    """
    return (student - teacher).square().mean(-1) / teacher.square().mean(-1).clamp(min=LEAST)


DISTANCES: dict[str, Callable[[torch.Tensor, torch.Tensor], torch.Tensor]] = {"cosine": cosine, "mse": mse}


@dataclass(frozen=True)
class LayerLoss:
    """Which layers learn from which, and when.

    For the share `alone` of the optimiser steps, the first ones, it is the whole loss (FitNets' first stage); then it
    is added, times `weight`, to the loss of the variant.
    """

    layers: list[int]  # of the student
    places: list[int]  # for each of them, which of the stored layers teaches it
    distance: str
    weight: float
    alone: float

    def is_alone(self, step: int, steps: int) -> bool:
        """Whether there is no other loss in this one, counted from 0, of so many optimiser steps."""
        return step < round(self.alone * steps)

    def factor(self, step: int, steps: int) -> float:
        """What it is multiplied by in this step."""
        return 1.0 if self.is_alone(step, steps) else self.weight

    def total(
        self, outputs: Sequence[torch.Tensor], teacher: torch.Tensor, weights: torch.Tensor, known: torch.Tensor
    ) -> torch.Tensor:
        """The sum over tokens of weight x loss, a scalar.

        `outputs` are the student's states (see `projected`), [tokens, teacher's width] for each of `layers`; `teacher`
        is [tokens, stored layers, teacher's width]; `weights` and `known` are [tokens]. A token that is not known,
        since none of the teacher's starts there, has no such loss.
        """
        distance = DISTANCES[self.distance]
        each = [
            distance(own.float(), teacher[:, place].float()) for own, place in zip(outputs, self.places, strict=True)
        ]
        return (weights * torch.stack(each).mean(0).masked_fill(~known, 0.0)).sum()


def prepare(network: Any, wanted: Settings, stored: Sequence[int], width: int) -> LayerLoss:
    """The loss, from states of the teacher's `width` of its layers `stored`; the network gets the matrices it needs.

    They begin as the identity (of the first of the teacher's coordinates, where it has more), so that layers that were
    cut from the teacher start where they are. Raises UserError where layers or widths do not fit.
    """
    text = network.config.get_text_config()
    places = [stored.index(teacher) for teacher, _ in wanted.pairs]
    loss = LayerLoss([student for _, student in wanted.pairs], places, wanted.loss, wanted.weight, wanted.alone)
    if max(loss.layers) >= text.num_hidden_layers:
        raise UserError(
            f"train.distilled.layer_loss.pairs: the student's layers are 0 to {text.num_hidden_layers - 1}, "
            f"given {loss.layers}."
        )
    if wanted.projection:
        matrices = [torch.nn.Linear(text.hidden_size, width, bias=False) for _ in loss.layers]
        for matrix in matrices:
            torch.nn.init.eye_(matrix.weight)
        network.add_module(NAME, torch.nn.ModuleList(matrices).to(network.device))
    elif text.hidden_size != width:
        raise UserError(
            f"train.distilled.layer_loss.projection: must be true, since the student's states have "
            f"{text.hidden_size} values and the teacher's {width}."
        )
    return loss


def projected(network: Any, outputs: Sequence[torch.Tensor]) -> list[torch.Tensor]:
    """The states of the student's layers, [tokens, width] each, in the teacher's space where there are projections."""
    if not hasattr(network, NAME):
        return list(outputs)
    return [matrix(output) for matrix, output in zip(getattr(network, NAME), outputs, strict=False)]


def remove_projections(network: Any) -> None:
    """Takes away what `prepare` gave: it is no part of the student."""
    if hasattr(network, NAME):
        delattr(network, NAME)
