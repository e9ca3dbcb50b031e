"""Logit distillation from a teacher whose tokenizer is not the student's, over spans of equal text.

A span (distill/targets/alignment.py) is a few tokens of the teacher and a few of the student that spell the same bytes.
What can happen at its first token are the outcomes that both sides can name:

- the span's own text, with the product of the probabilities of its tokens on either side (the chain rule);
- every other token that both vocabularies have, spelled alike, with its probability at the span's first token;
- the rest, with all the mass that is left, one outcome as the tail of distill/losses/divergences.py.

These masses add up to 1 on both sides, so that any divergence of distill/losses/divergences.py applies and is 0 for
equal distributions; with one and the same tokenizer it is exactly that module's loss. GOLD (Patiño et al. 2025)
multiplies all of the first token's distribution by the probability of the span's other tokens instead, which no longer
adds up to 1. An approximation remains: of a token that both have, each side means "and then a cut of mine".

Tokens that only one side has are in the rest, as a mass. Their sizes can be compared beside it, sorted, without knowing
which is which: ULD (Boizard et al. 2024), sum |p_(i) - q_(i)|, here over as many as the teacher's targets hold.
"""

import torch
from torch.nn.functional import log_softmax

from distill.losses.chunked import Outcomes
from distill.losses.divergences import DIVERGENCES, LEAST, NEVER, Settings
from distill.targets.spans import SpanTargets

CHUNK = 512  # tokens whose [tokens, vocab] fp32 copy exists at one time
NEARLY_ONE = -1e-7  # log-probability above which the rest of a span has no gradient


def total(
    logits: torch.Tensor,
    labels: torch.Tensor,
    weights: torch.Tensor,
    top: SpanTargets,
    settings: Settings,
    unshared_weight: float = 0.0,
    unshared_ids: torch.Tensor | None = None,
    chunk: int = CHUNK,
) -> torch.Tensor:
    """The sum of weight x loss, a scalar, as `losses.total`: a divergence for each span, counted once.

    `logits` is [tokens, vocab], `labels` and `weights` are [tokens]. Cross-entropy is on every token: its share of the
    loss, and the whole where the targets know nothing. `unshared_weight` times ULD over `unshared_ids`, the student's
    tokens that the teacher lacks, is added to each span's divergence.
    """
    starts = top.length > 0
    exists = top.log_probs > -torch.inf
    # the label is an outcome too, and stands in for the unused ones, which are masked below
    ids = torch.cat([torch.where(exists, top.ids, labels[:, None]), labels[:, None]], dim=1)
    log_probs, tail, label_log_probs = Outcomes.apply(logits, ids, labels, chunk)
    span = starts.cumsum(0) - 1
    texts = label_log_probs.new_zeros(int(starts.sum())).index_add(0, span[top.known], label_log_probs[top.known])
    spoken = top.text[starts] > -torch.inf
    rest = _rest(tail[starts], label_log_probs[starts], texts, top.length[starts], spoken)
    exists = torch.cat([exists[starts], spoken[:, None]], dim=1)
    student = torch.cat([log_probs[starts, :-1], texts[:, None]], dim=1).masked_fill(~exists, NEVER)
    teacher = torch.cat([top.log_probs[starts], top.text[starts, None]], dim=1)
    teacher = teacher.float().clamp(min=LEAST).masked_fill(~exists, NEVER)
    if settings.tail == "bucket":
        left = top.tail[starts].float()
        rest = torch.where(left <= LEAST, rest.clamp(min=LEAST), rest)
        student = torch.cat([student, rest[:, None]], dim=1)
        teacher = torch.cat([teacher, left.clamp(min=LEAST)[:, None]], dim=1)
    student, teacher = (log_softmax(side / settings.temperature, dim=-1) for side in (student, teacher))
    divergence = DIVERGENCES[settings.loss](student, teacher, settings.beta) * settings.temperature**2
    if unshared_weight:
        assert unshared_ids is not None, "the student's tokens that the teacher lacks are needed"
        divergence = divergence + unshared_weight * sorted_distance(
            logits[starts], labels[starts], top.unshared[starts], unshared_ids, chunk
        )
    share = settings.cross_entropy_share
    text = weights * -label_log_probs
    return share * text.sum() + (1 - share) * ((weights[starts] * divergence).sum() + text[~top.known].sum())


def sorted_distance(
    logits: torch.Tensor, labels: torch.Tensor, unshared: torch.Tensor, ids: torch.Tensor, chunk: int = CHUNK
) -> torch.Tensor:
    """ULD: the sum of |p_(i) - q_(i)| over the sorted probabilities of tokens that only one side has, [tokens].

    `unshared` [tokens, k] are the teacher's log-probabilities, best first; `ids` the student's tokens, of which the
    label, a part of the span's text, does not count. As many as the teacher's targets hold are compared.
    """
    number = min(unshared.shape[1], len(ids))
    result = []
    for start in range(0, len(logits), chunk):
        part = logits[start : start + chunk].float()
        probs = (part[:, ids] - part.logsumexp(-1, keepdim=True)).exp()
        probs = probs.masked_fill(ids[None] == labels[start : start + chunk, None], 0.0)
        best = probs.topk(number, dim=-1).values
        distance = (unshared[start : start + chunk, :number].exp() - best).abs().sum(-1)
        result.append(distance + unshared[start : start + chunk, number:].exp().sum(-1))
    return torch.cat(result) if result else logits.new_zeros(0)


def _rest(
    tail: torch.Tensor, first: torch.Tensor, text: torch.Tensor, length: torch.Tensor, spoken: torch.Tensor
) -> torch.Tensor:
    """The student's log mass of all else: of other tokens, and of the span's first token with another continuation.

    Where the teacher's targets do not hold the span's text, the student's is in the rest as well.
    """
    several = length > 1
    after = torch.where(several, text - first, -1.0).clamp(max=NEARLY_ONE)
    broken_off = (first + torch.log(-torch.expm1(after))).masked_fill(~several, NEVER)
    rest = torch.logaddexp(tail, broken_off)
    return torch.logaddexp(rest, text.masked_fill(spoken, NEVER))
