"""Teacher-forced scoring: the log-probability of every token of a response, and whether it ranked first."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Self

import torch
from transformers import PreTrainedModel

from distill.modeling.batches import PaddedBatch
from distill.modeling.chat import Example
from distill.modeling.forward import per_example, response_logits

CHUNK = 1024  # tokens whose [tokens, vocab] fp32 copy exists at one time


@dataclass(frozen=True)
class Score:
    """The scores of one response, a value for each of its tokens."""

    log_probs: list[float]  # nats
    ranked_first: list[bool]  # whether the token is the model's greedy choice

    @classmethod
    def from_rows(cls, rows: torch.Tensor) -> Self:
        """The score of rows of `token_scores`."""
        return cls(rows[:, 0].tolist(), rows[:, 1].bool().tolist())


@torch.inference_mode()
def score_examples(
    model: PreTrainedModel, examples: Sequence[Example], batch_tokens: int
) -> Iterator[tuple[int, Score]]:
    """Yields (index of the example, score), longest first, from batches of at most `batch_tokens` padded tokens."""
    for index, rows in per_example(model, examples, batch_tokens, _batch_scores):
        yield index, Score.from_rows(rows)


def token_scores(logits: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
    """The log-probability (nats) of each token under its row of `logits` [tokens, vocab], and 1 where it ranks first.

    [tokens, 2] in float32, on the CPU.
    """
    chunks = []
    for rows, chosen in zip(logits.split(CHUNK), tokens.split(CHUNK), strict=True):
        rows = rows.float()
        log_probs = rows.gather(1, chosen[:, None])[:, 0] - rows.logsumexp(-1)
        chunks.append(torch.stack([log_probs, (rows.argmax(-1) == chosen).float()], dim=1).cpu())
    return torch.cat(chunks)


def negative_log_likelihood(model: PreTrainedModel, examples: Sequence[Example], batch_tokens: int) -> float:
    """The nats of all responses together."""
    return -sum(sum(score.log_probs) for _, score in score_examples(model, examples, batch_tokens))


def _batch_scores(model: PreTrainedModel, batch: PaddedBatch) -> torch.Tensor:
    logits = response_logits(model, batch)
    return token_scores(logits, batch.response_ids().to(logits.device))
