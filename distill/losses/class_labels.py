"""The loss over class labels: a divergence between the teacher's and the student's distribution over the set.

The student's distribution S is the softmax, over the set, of the log-likelihood of each label's whole token sequence.
Losses are in nats per row.
"""

from collections.abc import Sequence

import torch
from torch.nn.functional import log_softmax

from distill.losses.logit_loss import LossSettings, token_losses


def sequence_log_probs(token_log_probs: torch.Tensor, lengths: Sequence[int]) -> torch.Tensor:
    """Each label's log-likelihood, [rows, labels], from its tokens', [rows x tokens of all labels]."""
    by_label = token_log_probs.view(-1, sum(lengths)).split(list(lengths), dim=-1)
    return torch.stack([log_probs.sum(-1) for log_probs in by_label], dim=-1)


def class_label_loss(
    student: torch.Tensor,
    teacher: torch.Tensor,
    label: torch.Tensor,
    weights: torch.Tensor,
    settings: LossSettings,
) -> torch.Tensor:
    """The sum over rows of weight x loss, a scalar, from log-likelihoods [rows, labels].

    `label` [rows] is the position of the teacher's label, on which cross-entropy is.
    """
    student, teacher = log_softmax(student, dim=-1), log_softmax(teacher, dim=-1)
    log_prob = student.gather(1, label[:, None])[:, 0]
    if settings.ce_weight == 1:
        return (weights * -log_prob).sum()
    known = torch.ones_like(label, dtype=torch.bool)
    return (weights * token_losses(student, teacher, log_prob, known, settings)).sum()
