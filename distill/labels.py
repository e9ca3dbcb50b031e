"""Answers out of a closed set: how likely a model takes each label to be, as the assistant's whole answer.

The log-likelihood of a label is that of all its tokens and of the end of turn after them, so that no label is another's
beginning. Log-probabilities are normalised over the set: log p(l) = sum_t log p(l_t | x, l_<t) - log sum over labels.
"""

import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from scipy.special import log_softmax

from distill.answers import Answer, Request
from distill.chat import Messages, prompt_ids, response_ids
from distill.continuations import Question, batch_scores, scores
from distill.scoring import Score

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


def log_probs(
    model: Any, tokenizer: Any, prompts: Sequence[Messages], labels: Sequence[str], batch_tokens: int
) -> tuple[np.ndarray, np.ndarray]:
    """The labels' log-likelihoods after each prompt, and these normalised over the set, [prompts, labels] nats each."""
    sums = np.zeros((len(prompts), len(labels)))
    for index, found in scores(model, asked(tokenizer, prompts, labels), batch_tokens):
        sums[index] = [math.fsum(score.log_probs) for score in found]
    return sums, log_softmax(sums, axis=-1)


def asked(tokenizer: Any, prompts: Sequence[Messages], labels: Sequence[str]) -> list[Question]:
    """Each prompt with every label as a continuation."""
    continuations = encoded(tokenizer, labels)
    return [Question(prompt_ids(tokenizer, messages), continuations) for messages in prompts]


def encoded(tokenizer: Any, labels: Sequence[str]) -> list[list[int]]:
    """The ids of each label with the end of turn after it."""
    return [response_ids(tokenizer, label, ended=True) for label in labels]


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
