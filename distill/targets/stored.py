"""Stored targets of one response: top-k tokens, drawn tokens, or hidden states.

Row i is the teacher's distribution for the i-th token of the response, at temperature 1, in the teacher's vocabulary.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from distill.targets.distributions import OutputStates, TopK

Positions = Sequence[int | None]  # for each token of the student, the position of the teacher's that starts there


@dataclass(frozen=True)
class StoredTopK:
    """The k best tokens and the mass of all others, in nats."""

    ids: torch.Tensor  # [tokens, k] int32
    log_probs: torch.Tensor  # [tokens, k] float16, or float32 where they come from draws; -inf where unused
    tail: torch.Tensor  # [tokens] float32, log of the mass outside the k

    def __len__(self) -> int:
        return len(self.tail)

    def for_student(self, positions: Positions, student_ids: torch.Tensor) -> TopK:
        """The rows at these positions in the student's vocabulary, their k + 1 masses scaled to add up to 1.

        `student_ids` [teacher vocabulary] is `tokenizers.to_student_ids`.
        """
        known, index = _known(positions), _index(positions)
        ids, probs = merge_duplicates(student_ids[self.ids[index].long()], self.log_probs[index].float().exp())
        tail = self.tail[index].exp()
        total = probs.sum(-1) + tail
        return TopK(ids=ids, log_probs=(probs / total[:, None]).log(), tail=(tail / total).log(), known=known)


@dataclass(frozen=True)
class StoredDraws:
    """Tokens drawn with replacement at each position, all positions one after the other."""

    ids: torch.Tensor  # [distinct ids of all positions] int32
    counts: torch.Tensor  # [distinct ids of all positions] uint8, how often each was drawn
    num_distinct: torch.Tensor  # [tokens] uint8, distinct ids at each position

    def __len__(self) -> int:
        return len(self.num_distinct)

    def frequencies(self, num_draws: int, width: int) -> StoredTopK:
        """The frequencies of the draws as distributions without a tail, `width` columns for each token."""
        distinct = self.num_distinct.long()
        first = distinct.cumsum(0) - distinct
        token = torch.arange(len(self)).repeat_interleave(distinct)
        column = torch.arange(len(token)) - first.repeat_interleave(distinct)
        ids = self.ids[first][:, None].repeat(1, width)  # an unused column repeats a token that is there
        log_probs = torch.full((len(self), width), -math.inf)
        ids[token, column] = self.ids
        log_probs[token, column] = (self.counts.float() / num_draws).log()
        return StoredTopK(ids, log_probs, torch.full((len(self),), -math.inf))


@dataclass(frozen=True)
class StoredStates:
    """The inputs of the teacher's output matrix, or the outputs of some of its layers."""

    states: torch.Tensor  # [tokens, width] or [tokens, layers, width], bfloat16

    def __len__(self) -> int:
        return len(self.states)

    def for_student(self, positions: Positions, student_ids: torch.Tensor) -> OutputStates:
        """The states at these positions; the vocabulary is mapped once they have become distributions."""
        return OutputStates(self.states[_index(positions)], _known(positions))


Stored = StoredTopK | StoredDraws | StoredStates


def top_k(logits: torch.Tensor, k: int) -> StoredTopK:
    """The k best tokens of each row of `logits` [tokens, vocab], best first, ties by id."""
    log_probs = logits.float().log_softmax(-1)
    best, ids = log_probs.topk(min(k, log_probs.shape[-1]), dim=-1)
    tail = torch.log1p(-best.exp().sum(-1).clamp(max=1.0))
    return StoredTopK(ids.int().cpu(), best.half().cpu(), tail.float().cpu())


def draw(logits: torch.Tensor, num_draws: int, seed: int) -> StoredDraws:
    """So many tokens drawn with replacement from each row of `logits` [tokens, vocab].

    The frequencies are an unbiased estimate of the distribution, and so is the gradient of the forward KL to them,
    which no k best tokens give (Anshumann et al. 2025, random sampling KD).
    """
    generator = torch.Generator(device=logits.device).manual_seed(seed)
    probs = logits.float().softmax(-1)
    drawn = torch.multinomial(probs, num_draws, replacement=True, generator=generator).sort(-1).values
    new = torch.ones_like(drawn, dtype=torch.bool)
    new[:, 1:] = drawn[:, 1:] != drawn[:, :-1]
    starts = new.flatten().nonzero()[:, 0]
    counts = torch.diff(starts, append=starts.new_tensor([drawn.numel()]))
    return StoredDraws(drawn[new].int().cpu(), counts.to(torch.uint8).cpu(), new.sum(-1).to(torch.uint8).cpu())


def merge_duplicates(ids: torch.Tensor, probs: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Adds up the probabilities of equal ids within each row: ([tokens, k] ids, [tokens, k] probs), 0 where unused."""
    ids, order = ids.sort(dim=-1, stable=True)
    probs = probs.gather(-1, order)
    new = torch.ones_like(ids, dtype=torch.bool)
    new[:, 1:] = ids[:, 1:] != ids[:, :-1]
    column = new.cumsum(-1) - 1
    merged_ids = torch.zeros_like(ids).scatter_(-1, column, ids)
    merged = torch.zeros_like(probs).scatter_add_(-1, column, probs)
    return merged_ids, merged


def _known(positions: Positions) -> torch.Tensor:
    return torch.tensor([position is not None for position in positions])


def _index(positions: Positions) -> torch.Tensor:
    return torch.tensor([position or 0 for position in positions])
