"""Class labels as completions of a local teacher."""

import math
from collections.abc import Iterator, Sequence

import numpy as np
from scipy.special import log_softmax
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from distill.generation.completions import Completion, Request
from distill.modeling.class_labels import with_candidates
from distill.modeling.continuations import Candidates, score_batch
from distill.modeling.scoring import Score

TOKEN_DIGITS, LABEL_DIGITS = 4, 6  # of the log-probability of a token and of a label


def complete(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, batches: list[list[Request]], labels: Sequence[str]
) -> Iterator[list[Completion]]:
    """Yields the completions of each batch: to each request the most likely label, the first of equal ones.

    `logprobs` are those of the label's tokens. `entropies` and `margins` have one value each, of the distribution
    over the labels.
    """
    for batch in batches:
        batch_candidates = with_candidates(tokenizer, [request.messages for request in batch], labels)
        yield [
            _completion(request, candidates, scores, labels)
            for request, candidates, scores in zip(
                batch, batch_candidates, score_batch(model, batch_candidates), strict=True
            )
        ]


def _completion(request: Request, candidates: Candidates, scores: list[Score], labels: Sequence[str]) -> Completion:
    normalized = log_softmax([math.fsum(score.log_probs) for score in scores])
    best = int(normalized.argmax())
    first, second = np.sort(normalized)[::-1][:2]
    return Completion(
        id=request.id,
        response=labels[best],
        finish_reason="stop",
        logprobs=[round(value, TOKEN_DIGITS) for value in scores[best].log_probs],
        usage={"prompt_tokens": len(candidates.prompt), "completion_tokens": len(candidates.continuations[best])},
        error=None,
        entropies=[round(float(-(np.exp(normalized) * normalized).sum()), TOKEN_DIGITS)],
        margins=[round(float(first - second), TOKEN_DIGITS)],
        label_log_probs=[round(float(value), LABEL_DIGITS) for value in normalized],
    )
