"""Log-likelihoods of class labels as a model's whole response."""

import math
from collections.abc import Sequence

import numpy as np
from scipy.special import log_softmax
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from distill.modeling.chat import prompt_ids, response_ids
from distill.modeling.continuations import Candidates, score_candidates
from distill.modeling.templates import Messages


def label_log_probs(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerFast,
    prompts: Sequence[Messages],
    labels: Sequence[str],
    batch_tokens: int,
) -> tuple[np.ndarray, np.ndarray]:
    """The labels' log-likelihoods after each prompt, and these normalised over the set, [prompts, labels] nats each."""
    sums = np.zeros((len(prompts), len(labels)))
    for index, found in score_candidates(model, with_candidates(tokenizer, prompts, labels), batch_tokens):
        sums[index] = [math.fsum(score.log_probs) for score in found]
    return sums, log_softmax(sums, axis=-1)


def with_candidates(
    tokenizer: PreTrainedTokenizerFast, prompts: Sequence[Messages], labels: Sequence[str]
) -> list[Candidates]:
    """Each prompt with every label as a continuation."""
    continuations = encode_labels(tokenizer, labels)
    return [Candidates(prompt_ids(tokenizer, messages), continuations) for messages in prompts]


def encode_labels(tokenizer: PreTrainedTokenizerFast, labels: Sequence[str]) -> list[list[int]]:
    """The ids of each label with the end of turn after it."""
    return [response_ids(tokenizer, label, ended=True) for label in labels]
