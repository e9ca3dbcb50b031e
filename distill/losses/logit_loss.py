"""The loss of a batch from its logits: cross-entropy on the teacher's text and a divergence from its distribution.

One convention: P is the teacher and S the student, both at temperature T over the vocabulary; a loss is summed over the
vocabulary, in nats per token, and multiplied by T^2 once (Hinton et al. 2015), so that its gradient keeps its size when
T changes. Top-k targets are k + 1 outcomes: the k best tokens and the rest. Both sides are reduced to these outcomes at
T = 1 first and tempered then; in the other order the loss is not 0 where S = P.
"""

import math
from dataclasses import dataclass
from functools import partial

import torch
from torch.nn.functional import log_softmax

from distill.losses.chunked import ChunkedLoss, TopKLogProbs, fast_chunk, label_log_probs
from distill.losses.divergences import DIVERGENCES
from distill.params.train import CrossEntropyLoss, Loss, MixtureLoss
from distill.targets.distributions import Full, TopK

MIN_LOG_PROB = math.log(1e-10)  # lower stored log-probabilities count as this: keeps the reverse KL finite
MIN_LOG_PROB_FULL = math.log(1e-30)  # the same for a full distribution, which is computed and not stored
MASKED_LOG_PROB = -1e4  # of an outcome that does not exist (ragged rows): exp of it is exactly 0


@dataclass(frozen=True)
class LossSettings:
    """`ce_weight` of the loss is cross-entropy on the text, the rest is the divergence `kind`.

    `beta` is the teacher's part in the mixture of jsd, skew_kl and skew_reverse_kl. The mass outside
    the k stored tokens is one outcome (`tail` bucket) or dropped on both sides (renormalise), which is blind to it.
    """

    kind: str
    ce_weight: float = 1.0
    temperature: float = 1.0
    beta: float = 0.5
    tail: str | None = None

    @classmethod
    def from_params(cls, loss: Loss) -> "LossSettings":
        """The settings of a section of params.yaml."""
        if isinstance(loss, CrossEntropyLoss):
            return CROSS_ENTROPY
        beta = {"beta": loss.beta} if isinstance(loss, MixtureLoss) else {}
        return cls(loss.kind, loss.ce_weight, loss.temperature, tail=loss.tail, **beta)


CROSS_ENTROPY = LossSettings("cross_entropy")


def logit_loss(
    logits: torch.Tensor,
    labels: torch.Tensor,
    weights: torch.Tensor,
    teacher: TopK | Full | None,
    settings: LossSettings,
    chunk: int | None = None,
) -> torch.Tensor:
    """The sum over tokens of weight x loss, a scalar; the caller divides by the sum of weights of the whole step.

    `logits` is [tokens, vocab] of any float type, `labels` and `weights` are [tokens]. `teacher` may be None for
    cross-entropy only. `chunk` is how many tokens' fp32 copy exists at one time, by default as many as are fast.
    """
    if settings.ce_weight == 1:
        return (weights * -label_log_probs(logits, labels, chunk)).sum()
    chunk = chunk or fast_chunk(logits)
    assert teacher is not None, f"{settings.kind} needs the teacher's distributions"
    if isinstance(teacher, Full):
        return ChunkedLoss.apply(logits, partial(_full_loss, labels, weights, teacher, settings), chunk)
    return _top_k_loss(logits, labels, weights, teacher, settings, chunk)


def token_losses(
    student: torch.Tensor, teacher: torch.Tensor, label: torch.Tensor, known: torch.Tensor, settings: LossSettings
) -> torch.Tensor:
    """The loss of each token, [tokens], from log-probabilities of outcomes [tokens, outcomes] and labels [tokens]."""
    student, teacher = (log_softmax(side / settings.temperature, dim=-1) for side in (student, teacher))
    divergence = DIVERGENCES[settings.kind](student, teacher, settings.beta) * settings.temperature**2
    mixed = settings.ce_weight * -label + (1 - settings.ce_weight) * divergence
    return torch.where(known, mixed, -label)


def _top_k_loss(
    logits: torch.Tensor,
    labels: torch.Tensor,
    weights: torch.Tensor,
    top: TopK,
    settings: LossSettings,
    chunk: int,
) -> torch.Tensor:
    exists = top.log_probs > -math.inf
    ids = torch.where(exists, top.ids, top.ids[:, :1])
    log_probs, tail, label = TopKLogProbs.apply(logits, ids, labels, chunk)
    student = log_probs.masked_fill(~exists, MASKED_LOG_PROB)
    teacher = top.log_probs.float().clamp(min=MIN_LOG_PROB).masked_fill(~exists, MASKED_LOG_PROB)
    if settings.tail == "bucket":
        empty = top.tail <= MIN_LOG_PROB  # where the teacher has no mass left, the student's gets the same minimum
        tail = torch.where(empty, tail.clamp(min=MIN_LOG_PROB), tail)
        student = torch.cat([student, tail[:, None]], dim=-1)
        teacher = torch.cat([teacher, top.tail.float().clamp(min=MIN_LOG_PROB)[:, None]], dim=-1)
    return (weights * token_losses(student, teacher, label, top.known, settings)).sum()


def _full_loss(
    labels: torch.Tensor, weights: torch.Tensor, full: Full, settings: LossSettings, logits: torch.Tensor, span: slice
) -> torch.Tensor:
    """The weighted sum of the losses of the tokens of `span`, whose fp32 logits are passed: every token an outcome."""
    student = log_softmax(logits, dim=-1)
    teacher = full.log_probs(span).clamp(min=MIN_LOG_PROB_FULL)
    label = student.gather(1, labels[span, None])[:, 0]
    return (weights[span] * token_losses(student, teacher, label, full.known[span], settings)).sum()
