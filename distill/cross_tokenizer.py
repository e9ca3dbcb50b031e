"""Logit distillation from a teacher whose tokenizer is not the student's, over spans of equal text.

A span (distill/alignment.py) is a few tokens of the teacher and a few of the student that spell the same bytes. What
can happen at its first token are the outcomes that both sides can name:

- the span's own text, with the product of the probabilities of its tokens on either side (the chain rule);
- every other token that both vocabularies have, spelled alike, with its probability at the span's first token;
- the rest, with all the mass that is left, one outcome as the tail of distill/losses.py.

These masses add up to 1 on both sides, so that any divergence of distill/losses.py applies and is 0 for equal
distributions; with one and the same tokenizer it is exactly that module's loss. GOLD (Patiño et al. 2025) multiplies
all of the first token's distribution by the probability of the span's other tokens instead, which no longer adds up to
1. An approximation remains: of a token that both have, each side means "and then a cut of mine".

Tokens that only one side has are in the rest, as a mass. Their sizes can be compared beside it, sorted, without knowing
which is which: ULD (Boizard et al. 2024), sum |p_(i) - q_(i)|, here over as many as the teacher's targets hold.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch.nn.functional import log_softmax

from distill.alignment import Span, Spelling, response_spans, shared, spelling
from distill.losses import DIVERGENCES, LEAST, NEVER, Outcomes, Settings
from distill.targets import Rows

CHUNK = 512  # tokens whose [tokens, vocab] fp32 copy exists at one time
NEARLY_ONE = -1e-7  # log-probability above which the rest of a span has no gradient


@dataclass(frozen=True)
class SpanTargets:
    """The teacher's outcomes of each span, at temperature 1, in the row of its first token of the student.

    Every field has a row for each response token of the student, so that those of several samples are concatenated.
    """

    ids: torch.Tensor  # [tokens, k] long, of the student's vocabulary
    log_probs: torch.Tensor  # [tokens, k] nats, -inf where unused
    text: torch.Tensor  # [tokens] of the span's own text, -inf where a token of it is not among the stored
    tail: torch.Tensor  # [tokens] log of the mass of all else
    unshared: torch.Tensor  # [tokens, k] of tokens that the student lacks, best first, -inf where unused
    length: torch.Tensor  # [tokens] long: the student's tokens of the span at its first, 0 at the others
    known: torch.Tensor  # [tokens] bool: false where no span is, or one of the rest alone; cross-entropy serves there


@dataclass(frozen=True)
class Pair:
    """A teacher's and a student's tokenizer, and the tokens that both have."""

    teacher: Spelling
    student: Spelling
    first: torch.Tensor  # as `alignment.shared`, for the first span of a response
    inside: torch.Tensor  # and for the others

    def targets(self, rows: Rows, teacher_ids: Sequence[int], student_ids: Sequence[int], ended: bool) -> "SpanTargets":
        """The targets of one response from the teacher's rows; `ended`: its ids end with the end-of-turn token."""
        if self.teacher.ends:
            rows = ends_as_one(rows, self.teacher.ends, self.teacher.end)
        spans = response_spans(self.teacher, self.student, teacher_ids, student_ids, ended)
        return span_targets(rows, spans, teacher_ids, student_ids, self.first, self.inside)

    def unshared_ids(self) -> torch.Tensor:
        """The student's tokens that the teacher lacks, ascending."""
        everything = torch.ones(len(self.student.tokens), dtype=torch.bool)
        everything[self.inside[self.inside >= 0]] = False
        return everything.nonzero()[:, 0]


def pair(teacher: Any, student: Any) -> Pair:
    """What the two tokenizers have in common. Raises UserError as `alignment.spelling` does."""
    sides = spelling(teacher), spelling(student)
    return Pair(*sides, shared(*sides, first=True), shared(*sides, first=False))


def ends_as_one(rows: Rows, ends: Sequence[int], end: int) -> Rows:
    """The rows [tokens, k] with the probability of all tokens that say that an answer is over at one, `end`."""
    over = torch.isin(rows.ids, torch.tensor(ends, dtype=rows.ids.dtype))
    first = over & (over.cumsum(-1) == 1)
    mass = rows.log_probs.float().masked_fill(~over, -torch.inf).logsumexp(-1, keepdim=True)
    log_probs = torch.where(first, mass, rows.log_probs.float().masked_fill(over, -torch.inf))
    return replace(rows, ids=rows.ids.masked_fill(over, end), log_probs=log_probs)


def span_targets(
    rows: Rows,
    spans: Sequence[Span],
    teacher_ids: Sequence[int],
    student_ids: Sequence[int],
    first: torch.Tensor,
    inside: torch.Tensor,
) -> SpanTargets:
    """The targets of one response from the teacher's rows [teacher tokens, k], stored or of a teacher at hand.

    `first` and `inside` are the tokens that both have (`alignment.shared`), for the first span and the others.
    """
    count, k = len(student_ids), rows.ids.shape[1]
    result = SpanTargets(
        ids=torch.zeros(count, k, dtype=torch.long),
        log_probs=torch.full((count, k), -torch.inf),
        text=torch.full((count,), -torch.inf),
        tail=torch.zeros(count),
        unshared=torch.full((count, k), -torch.inf),
        length=torch.zeros(count, dtype=torch.long),
        known=torch.zeros(count, dtype=torch.bool),
    )
    if not spans:
        return result
    ids, probs, rest = rows.ids.long(), rows.log_probs.double().exp(), rows.tail.double().exp()
    total = probs.sum(-1) + rest  # stored in half precision: not quite 1
    probs, rest = probs / total[:, None], rest / total
    said = torch.tensor(list(teacher_ids))
    is_said = ids == said[: len(ids), None]
    own = (probs * is_said).sum(-1)
    starts = torch.tensor([span.teacher[0] for span in spans])
    places = torch.tensor([span.student[0] for span in spans])
    text = torch.stack([own[span.teacher[0] : span.teacher[1]].prod() for span in spans])
    mapped = inside[ids[starts]]
    if spans[0].teacher[0] == 0:
        mapped[0] = first[ids[0]]
    others = ~is_said[starts]
    student_first = torch.tensor(list(student_ids))[places][:, None]
    chosen = others & (mapped >= 0) & (mapped != student_first)
    missing = others & (mapped < 0)
    left = rest[starts] + (probs[starts] * (others & ~chosen)).sum(-1) + (own[starts] - text).clamp(min=0)
    result.ids[places] = torch.where(chosen, mapped, 0)
    result.log_probs[places] = torch.where(chosen, probs[starts], 0.0).log().float()
    result.text[places] = text.log().float()
    result.tail[places] = left.log().float()
    result.unshared[places] = torch.where(missing, probs[starts], 0.0).sort(-1, descending=True).values.log().float()
    named = chosen.any(-1) | (text > 0)
    for span, is_named in zip(spans, named.tolist(), strict=True):
        if is_named:
            result.length[span.student[0]] = span.student[1] - span.student[0]
            result.known[span.student[0] : span.student[1]] = True
    return result


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
