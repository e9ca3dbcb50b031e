"""Class labels chosen by a local teacher."""

import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from scipy.special import log_softmax

from distill.generation.completions import Answer, Request
from distill.modeling.class_labels import asked
from distill.modeling.continuations import Question, batch_scores
from distill.modeling.scoring import Score

DIGITS = 6  # of a log-probability in a row


def answer(model: Any, tokenizer: Any, batches: list[list[Request]], labels: Sequence[str]) -> Iterator[list[Answer]]:
    """Yields the answers of one batch of requests after the other: to each the likeliest label, the first of equals.

    `logprobs` are those of the label's tokens; `entropies` and `margins` have one value, of the distribution over the
    labels, for the answer as a whole.
    """
    for batch in batches:
        questions = asked(tokenizer, [request.messages for request in batch], labels)
        yield [
            _answer(request, question, found, labels)
            for request, question, found in zip(batch, questions, batch_scores(model, questions), strict=True)
        ]


def _answer(request: Request, question: Question, found: list[Score], labels: Sequence[str]) -> Answer:
    normalised = log_softmax([math.fsum(score.log_probs) for score in found])
    best = int(normalised.argmax())
    first, second = np.sort(normalised)[::-1][:2]
    return Answer(
        id=request.id,
        response=labels[best],
        finish_reason="stop",
        logprobs=[round(value, 4) for value in found[best].log_probs],
        usage={"prompt_tokens": len(question.prompt), "completion_tokens": len(question.continuations[best])},
        error=None,
        entropies=[round(float(-(np.exp(normalised) * normalised).sum()), 4)],
        margins=[round(float(first - second), 4)],
        label_log_probs=[round(float(value), DIGITS) for value in normalised],
    )
