"""Losses over class labels."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch.nn.functional import log_softmax

from distill.losses import chunked, divergences
from distill.modeling.continuations import continuation_logits


def total(model: Any, inputs: Mapping[str, Any], settings: divergences.Settings) -> torch.Tensor:
    """The sum over rows of weight x loss, a scalar, for a batch. Cross-entropy is -log S of the teacher's label.

    A prompt goes through the model once for all labels.
    """
    logits = continuation_logits(model, inputs["questions"])
    log_probs = chunked.of_labels(logits, inputs["labels"])
    student = sums(log_probs, [len(label) for label in inputs["questions"][0].continuations])
    return over_set(student, inputs["label_log_probs"], inputs["chosen"], inputs["weights"], settings)


def sums(log_probs: torch.Tensor, lengths: Sequence[int]) -> torch.Tensor:
    """Each label's log-likelihood, [rows, labels], from its tokens', [rows x tokens of all labels]."""
    parts = log_probs.view(-1, sum(lengths)).split(list(lengths), dim=-1)
    return torch.stack([part.sum(-1) for part in parts], dim=-1)


def over_set(
    student: torch.Tensor,
    teacher: torch.Tensor,
    chosen: torch.Tensor,
    weights: torch.Tensor,
    settings: divergences.Settings,
) -> torch.Tensor:
    """The sum over rows of weight x loss, from log-likelihoods [rows, labels]; `chosen` [rows] are the teacher's."""
    student, teacher = log_softmax(student, dim=-1), log_softmax(teacher, dim=-1)
    label = student.gather(1, chosen[:, None])[:, 0]
    if settings.loss == "cross_entropy":
        return (weights * -label).sum()
    known = torch.ones_like(chosen, dtype=torch.bool)
    return (weights * divergences.per_token(student, teacher, label, known, settings)).sum()
