"""Loss over spans of equal text, for a teacher whose tokenizer is not the student's.

A span (distill/targets/alignment.py) is a few tokens of the teacher and a few of the student that spell the same bytes.
The outcomes at its first token are those that both sides can name:

- the span's own text, with the product of the probabilities of its tokens on either side (the chain rule);
- every other token that both vocabularies have, spelled alike, with its probability at the span's first token;
- the rest, with all the mass that is left, one outcome as the tail of distill/losses/logit_loss.py.

These masses add up to 1 on both sides, so that every divergence applies and is 0 for equal distributions; with one
tokenizer on both sides the loss is exactly that of top-k targets. GOLD (Patiño et al. 2025) multiplies all of the first
token's distribution by the probability of the span's other tokens instead, which no longer adds up to 1. One
approximation remains: of a token that both have, each side means "and then a boundary of mine".
"""

import torch
from torch.nn.functional import log_softmax

from distill.losses.chunked import TopKLogProbs
from distill.losses.divergences import DIVERGENCES
from distill.losses.logit_loss import MASKED_LOG_PROB, MIN_LOG_PROB, LossSettings
from distill.targets.spans import SpanTargets

CHUNK = 512  # tokens whose [tokens, vocab] fp32 copy exists at one time
NEARLY_ONE = -1e-7  # log-probability above which the rest of a span has no gradient


def span_loss(
    logits: torch.Tensor,
    labels: torch.Tensor,
    weights: torch.Tensor,
    targets: SpanTargets,
    settings: LossSettings,
    chunk: int = CHUNK,
) -> torch.Tensor:
    """The sum of weight x loss, a scalar, as `logit_loss`: a divergence for each span, counted once.

    `logits` is [tokens, vocab], `labels` and `weights` are [tokens]. Cross-entropy is on every token: `ce_weight` of
    the loss, and all of it where the targets are unknown.
    """
    starts = targets.length > 0
    exists = targets.log_probs > -torch.inf
    # the label is an outcome too, and replaces the unused ones, which are masked below
    ids = torch.cat([torch.where(exists, targets.ids, labels[:, None]), labels[:, None]], dim=1)
    log_probs, tail, label_log_probs = TopKLogProbs.apply(logits, ids, labels, chunk)
    span = starts.cumsum(0) - 1
    known = targets.known
    text = label_log_probs.new_zeros(int(starts.sum())).index_add(0, span[known], label_log_probs[known])
    has_text = targets.text[starts] > -torch.inf
    rest = _log_rest(tail[starts], label_log_probs[starts], text, targets.length[starts], has_text)
    exists = torch.cat([exists[starts], has_text[:, None]], dim=1)
    student = torch.cat([log_probs[starts, :-1], text[:, None]], dim=1).masked_fill(~exists, MASKED_LOG_PROB)
    teacher = torch.cat([targets.log_probs[starts], targets.text[starts, None]], dim=1)
    teacher = teacher.float().clamp(min=MIN_LOG_PROB).masked_fill(~exists, MASKED_LOG_PROB)
    if settings.tail == "bucket":
        teacher_rest = targets.tail[starts].float()
        rest = torch.where(teacher_rest <= MIN_LOG_PROB, rest.clamp(min=MIN_LOG_PROB), rest)
        student = torch.cat([student, rest[:, None]], dim=1)
        teacher = torch.cat([teacher, teacher_rest.clamp(min=MIN_LOG_PROB)[:, None]], dim=1)
    student, teacher = (log_softmax(side / settings.temperature, dim=-1) for side in (student, teacher))
    divergence = DIVERGENCES[settings.kind](student, teacher, settings.beta) * settings.temperature**2
    cross_entropy = weights * -label_log_probs
    return settings.ce_weight * cross_entropy.sum() + (1 - settings.ce_weight) * (
        (weights[starts] * divergence).sum() + cross_entropy[~known].sum()
    )


def _log_rest(
    tail: torch.Tensor, first: torch.Tensor, text: torch.Tensor, length: torch.Tensor, has_text: torch.Tensor
) -> torch.Tensor:
    """The student's log mass of all else: of other tokens, and of the span's first token with another continuation.

    Where the teacher's targets do not hold the span's text, the student's is in the rest as well.
    """
    several = length > 1
    after = torch.where(several, text - first, -1.0).clamp(max=NEARLY_ONE)
    broken_off = (first + torch.log(-torch.expm1(after))).masked_fill(~several, MASKED_LOG_PROB)
    rest = torch.logaddexp(tail, broken_off)
    return torch.logaddexp(rest, text.masked_fill(has_text, MASKED_LOG_PROB))
