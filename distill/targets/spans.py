"""Targets over spans of equal text, for a student of another tokenizer family."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch

from distill.targets.alignment import Span, Spelling, response_spans, shared, spelling
from distill.targets.store import Rows


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
