"""The losses: cross-entropy on the teacher's text and divergences from the teacher's distribution.

One convention: P is the teacher and S the student, both at temperature T over the vocabulary; a loss is
summed over the vocabulary, in nats per token, and multiplied by T^2 once (Hinton et al. 2015), so that its
gradient keeps its size when T changes. Top-k targets are k + 1 outcomes: the k best tokens and the rest.
Both sides are brought to these outcomes at T = 1 first and tempered then; the other way round the loss is
not 0 where S = P.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from torch.nn.functional import log_softmax

from distill.losses.chunked import InOnePass, Outcomes, _fast_chunk, of_labels

LEAST = math.log(1e-10)  # log-probability below which a stored mass is taken for this: keeps reverse KL finite
NOTHING = math.log(1e-30)  # the same for a whole distribution, which is computed and not stored
NEVER = -1e4  # log-probability of an outcome that does not exist (ragged rows): exp of it is exactly 0


@dataclass(frozen=True)
class Settings:
    """Which loss: `cross_entropy_share` of it is cross-entropy on the text, the rest is `loss`.

    `beta` is the teacher's part in the mixture of jsd, skew_kl and skew_reverse_kl. `tail` says what becomes of
    the mass outside the k stored tokens: one outcome of its own (bucket), or dropped on both sides
    (renormalise), which is blind to it.
    """

    loss: str
    cross_entropy_share: float
    temperature: float
    beta: float
    tail: str


@dataclass(frozen=True)
class TopK:
    """The teacher's distribution at each token, at temperature 1, in the student's vocabulary."""

    ids: torch.Tensor  # [tokens, k] long
    log_probs: torch.Tensor  # [tokens, k] nats, -inf where a row has fewer than k
    tail: torch.Tensor  # [tokens] log of the mass of all other tokens
    known: torch.Tensor  # [tokens] bool: false where the teacher has no distribution; cross-entropy serves there


@dataclass(frozen=True)
class Full:
    """The teacher's whole distribution at each token, made chunk by chunk when the loss asks for it."""

    log_probs: Callable[[slice], torch.Tensor]  # tokens -> [tokens, vocab] nats at temperature 1, student's vocabulary
    known: torch.Tensor  # [tokens] bool, as in TopK


def forward_kl(student: torch.Tensor, teacher: torch.Tensor, beta: float) -> torch.Tensor:
    """KL(P || S), [..., outcomes] log-probabilities to [...] nats."""
    return (teacher.exp() * (teacher - student)).sum(-1)


def reverse_kl(student: torch.Tensor, teacher: torch.Tensor, beta: float) -> torch.Tensor:
    """KL(S || P), as in MiniLLM (Gu et al. 2024)."""
    return (student.exp() * (student - teacher)).sum(-1)


def jsd(student: torch.Tensor, teacher: torch.Tensor, beta: float) -> torch.Tensor:
    """beta KL(P || M) + (1 - beta) KL(S || M) with M = beta P + (1 - beta) S, as in GKD (Agarwal et al. 2024).

    Towards beta = 0 and 1 it tends to 0 and not to the KLs (at 0.01 it is about a hundredth of one): use
    forward_kl and reverse_kl for those.
    """
    mixture = torch.logaddexp(teacher + math.log(beta), student + math.log1p(-beta))
    return beta * forward_kl(mixture, teacher, beta) + (1 - beta) * forward_kl(mixture, student, beta)


def skew_kl(student: torch.Tensor, teacher: torch.Tensor, beta: float) -> torch.Tensor:
    """KL(P || beta P + (1 - beta) S), as in DistiLLM (Ko et al. 2024)."""
    mixture = torch.logaddexp(teacher + math.log(beta), student + math.log1p(-beta))
    return forward_kl(mixture, teacher, beta)


def skew_reverse_kl(student: torch.Tensor, teacher: torch.Tensor, beta: float) -> torch.Tensor:
    """KL(S || beta P + (1 - beta) S), as in DistiLLM, whose alpha is the student's part and so 1 - beta."""
    mixture = torch.logaddexp(teacher + math.log(beta), student + math.log1p(-beta))
    return forward_kl(mixture, student, beta)


def total_variation(student: torch.Tensor, teacher: torch.Tensor, beta: float) -> torch.Tensor:
    """Half the sum of |P - S|, between 0 and 1, as in f-distill (Wen et al. 2023)."""
    return 0.5 * (teacher.exp() - student.exp()).abs().sum(-1)


DIVERGENCES: dict[str, Callable[[torch.Tensor, torch.Tensor, float], torch.Tensor]] = {
    "forward_kl": forward_kl,
    "reverse_kl": reverse_kl,
    "jsd": jsd,
    "skew_kl": skew_kl,
    "skew_reverse_kl": skew_reverse_kl,
    "total_variation": total_variation,
}


def total(
    logits: torch.Tensor,
    labels: torch.Tensor,
    weights: torch.Tensor,
    top: TopK | Full | None,
    settings: Settings,
    chunk: int | None = None,
) -> torch.Tensor:
    """The sum over tokens of weight x loss, a scalar; the caller divides by the sum of weights of the whole step.

    `logits` is [tokens, vocab] of any float type, `labels` and `weights` are [tokens]. `top`, the teacher's targets,
    may be None for cross-entropy only. `chunk` is how many tokens' fp32 copy exists at one time, by default as many
    as are fast.
    """
    if settings.loss == "cross_entropy" or settings.cross_entropy_share == 1:
        return (weights * -of_labels(logits, labels, chunk)).sum()
    chunk = chunk or _fast_chunk(logits)
    assert top is not None, f"{settings.loss} needs the teacher's targets"
    if isinstance(top, Full):
        return InOnePass.apply(logits, partial(_full, labels, weights, top, settings), chunk)
    exists = top.log_probs > -math.inf
    ids = torch.where(exists, top.ids, top.ids[:, :1])
    log_probs, tail, label_log_probs = Outcomes.apply(logits, ids, labels, chunk)
    student = log_probs.masked_fill(~exists, NEVER)
    teacher = top.log_probs.float().clamp(min=LEAST).masked_fill(~exists, NEVER)
    if settings.tail == "bucket":
        nothing = top.tail <= LEAST  # of the teacher's mass: there the student's is floored alike
        tail = torch.where(nothing, tail.clamp(min=LEAST), tail)
        student = torch.cat([student, tail[:, None]], dim=-1)
        teacher = torch.cat([teacher, top.tail.float().clamp(min=LEAST)[:, None]], dim=-1)
    return (weights * per_token(student, teacher, label_log_probs, top.known, settings)).sum()


def per_token(
    student: torch.Tensor, teacher: torch.Tensor, label: torch.Tensor, known: torch.Tensor, settings: Settings
) -> torch.Tensor:
    """The loss of each token, [tokens], from log-probabilities of outcomes [tokens, outcomes] and labels [tokens]."""
    student, teacher = (log_softmax(side / settings.temperature, dim=-1) for side in (student, teacher))
    divergence = DIVERGENCES[settings.loss](student, teacher, settings.beta) * settings.temperature**2
    mixed = settings.cross_entropy_share * -label + (1 - settings.cross_entropy_share) * divergence
    return torch.where(known, mixed, -label)


def _full(
    labels: torch.Tensor, weights: torch.Tensor, full: Full, settings: Settings, logits: torch.Tensor, span: slice
) -> torch.Tensor:
    """The weighted sum of the losses of the tokens of `span`, whose fp32 logits are given: every token an outcome."""
    student = log_softmax(logits, dim=-1)
    teacher = full.log_probs(span).clamp(min=NOTHING)
    label = student.gather(1, labels[span, None])[:, 0]
    return (weights[span] * per_token(student, teacher, label, full.known[span], settings)).sum()
