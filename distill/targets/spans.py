"""Targets over spans of equal text, for a student of another tokenizer family."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from transformers import PreTrainedTokenizerFast

from distill.targets.alignment import Span, TokenBytes, response_spans, shared_tokens, token_bytes
from distill.targets.distributions import TensorFields
from distill.targets.stored import StoredTopK


@dataclass(frozen=True)
class SpanTargets(TensorFields):
    """The teacher's outcomes of each span, at temperature 1, in the row of its first token of the student."""

    ids: torch.Tensor  # [tokens, k] long, of the student's vocabulary
    log_probs: torch.Tensor  # [tokens, k] nats, -inf where unused
    text: torch.Tensor  # [tokens] of the span's own text, -inf where a token of it is not among the stored
    tail: torch.Tensor  # [tokens] log of the mass of all else
    length: torch.Tensor  # [tokens] long: the student's tokens of the span at its first, 0 at the others
    known: torch.Tensor  # [tokens] bool: false without a span, or with one of the rest alone: cross-entropy is used


@dataclass(frozen=True)
class Response:
    """A response as token ids of both tokenizers; `ended`: the teacher's ids end with its end-of-turn token."""

    teacher: Sequence[int]
    student: Sequence[int]
    ended: bool


@dataclass(frozen=True)
class TokenizerPair:
    """A teacher's and a student's tokenizer, and the tokens that both have."""

    teacher: TokenBytes
    student: TokenBytes
    first: torch.Tensor  # as `shared_tokens`, for the first span of a response
    inside: torch.Tensor  # and for the others

    def span_targets(self, rows: StoredTopK, response: Response) -> SpanTargets:
        """The targets of one response from the teacher's rows [teacher tokens, k]."""
        if self.teacher.ends:
            rows = merge_ends(rows, self.teacher.ends, self.teacher.end)
        spans = response_spans(self.teacher, self.student, response.teacher, response.student, response.ended)
        return span_targets(rows, spans, response, self.first, self.inside)


def tokenizer_pair(teacher: PreTrainedTokenizerFast, student: PreTrainedTokenizerFast) -> TokenizerPair:
    """What the two tokenizers have in common. Raises UserError as `token_bytes` does."""
    sides = token_bytes(teacher), token_bytes(student)
    return TokenizerPair(*sides, shared_tokens(*sides, first=True), shared_tokens(*sides, first=False))


def merge_ends(rows: StoredTopK, ends: Sequence[int], end: int) -> StoredTopK:
    """The rows [tokens, k] with the probability of all tokens that end a response at one of them, `end`."""
    is_end = torch.isin(rows.ids, torch.tensor(ends, dtype=rows.ids.dtype))
    first = is_end & (is_end.cumsum(-1) == 1)
    mass = rows.log_probs.float().masked_fill(~is_end, -torch.inf).logsumexp(-1, keepdim=True)
    log_probs = torch.where(first, mass, rows.log_probs.float().masked_fill(is_end, -torch.inf))
    return replace(rows, ids=rows.ids.masked_fill(is_end, end), log_probs=log_probs)


def span_targets(
    rows: StoredTopK, spans: Sequence[Span], response: Response, first: torch.Tensor, inside: torch.Tensor
) -> SpanTargets:
    """The targets of one response from the teacher's rows [teacher tokens, k].

    `first` and `inside` are the tokens that both have (`shared_tokens`), for the first span and the others.
    """
    count, k = len(response.student), rows.ids.shape[1]
    result = SpanTargets(
        ids=torch.zeros(count, k, dtype=torch.long),
        log_probs=torch.full((count, k), -torch.inf),
        text=torch.full((count,), -torch.inf),
        tail=torch.zeros(count),
        length=torch.zeros(count, dtype=torch.long),
        known=torch.zeros(count, dtype=torch.bool),
    )
    if not spans:
        return result
    ids, probs, rest = rows.ids.long(), rows.log_probs.double().exp(), rows.tail.double().exp()
    total = probs.sum(-1) + rest  # stored in half precision: not quite 1
    probs, rest = probs / total[:, None], rest / total
    is_text = ids == torch.tensor(list(response.teacher))[: len(ids), None]
    text_probs = (probs * is_text).sum(-1)
    starts = torch.tensor([span.teacher[0] for span in spans])
    positions = torch.tensor([span.student[0] for span in spans])
    text = torch.stack([text_probs[span.teacher[0] : span.teacher[1]].prod() for span in spans])
    mapped = inside[ids[starts]]
    if spans[0].teacher[0] == 0:
        mapped[0] = first[ids[0]]
    not_text = ~is_text[starts]
    student_first = torch.tensor(list(response.student))[positions][:, None]
    chosen = not_text & (mapped >= 0) & (mapped != student_first)
    unmapped = (probs[starts] * (not_text & ~chosen)).sum(-1)
    remaining = rest[starts] + unmapped + (text_probs[starts] - text).clamp(min=0)
    result.ids[positions] = torch.where(chosen, mapped, 0)
    result.log_probs[positions] = torch.where(chosen, probs[starts], 0.0).log().float()
    result.text[positions] = text.log().float()
    result.tail[positions] = remaining.log().float()
    named = chosen.any(-1) | (text > 0)
    for span, is_named in zip(spans, named.tolist(), strict=True):
        if is_named:
            result.length[span.student[0]] = span.student[1] - span.student[0]
            result.known[span.student[0] : span.student[1]] = True
    return result
