"""Teacher-forced scoring: the log-probability of every token of a response, and whether it ranked first."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from distill.modeling.batches import length_batches, pad_batch
from distill.modeling.chat import Example
from distill.modeling.forward import response_logits

CHUNK = 1024  # tokens whose [tokens, vocab] fp32 copy exists at one time


@dataclass(frozen=True)
class Score:
    """The scores of one response, a value for each of its tokens."""

    log_probs: list[float]  # nats
    ranked_first: list[bool]  # whether the token is the model's greedy choice


@torch.inference_mode()
def scores(model: Any, examples: Sequence[Example], batch_tokens: int) -> Iterator[tuple[int, Score]]:
    """Yields (index of the example, score), longest first, from batches of at most `batch_tokens` padded tokens."""
    for batch in length_batches(examples, batch_tokens):
        logits = response_logits(model, pad_batch([(examples[i].prompt, examples[i].response) for i in batch]))
        labels = torch.tensor([token for i in batch for token in examples[i].response], device=logits.device)
        log_probs, first = of_tokens(logits, labels)
        start = 0
        for index in batch:
            end = start + len(examples[index].response)
            yield index, Score(log_probs[start:end], first[start:end])
            start = end


def of_tokens(logits: torch.Tensor, labels: torch.Tensor) -> tuple[list[float], list[bool]]:
    """The log-probability (nats) of each label under its row of `logits` [tokens, vocab], and whether it is first."""
    log_probs: list[float] = []
    first: list[bool] = []
    for start in range(0, len(labels), CHUNK):
        part, wanted = logits[start : start + CHUNK].float(), labels[start : start + CHUNK]
        own = part.gather(1, wanted[:, None])[:, 0]
        log_probs += (own - part.logsumexp(-1)).tolist()
        first += (part.argmax(-1) == wanted).tolist()
    return log_probs, first


def negative_log_likelihood(model: Any, examples: Sequence[Example], batch_tokens: int) -> float:
    """The nats of all responses together."""
    return -sum(sum(score.log_probs) for _, score in scores(model, examples, batch_tokens))
