"""Confidence measures: one number for a response, higher is more confident (or, for ifd, more to learn from).

Each is None if the response lacks what the measure needs.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from distill.core.text import rouge_l
from distill.params.weight import Confidence, LowestWindowConfidence

Numbers = Sequence[float] | None  # a value a token


@dataclass(frozen=True)
class ConfidenceInputs:
    """What may be known of a response; all logs are natural."""

    response: str
    log_probs: Numbers = None  # of the tokens that the teacher chose
    entropies: Numbers = None  # of its distribution at each token
    margins: Numbers = None  # log-probability of its best token less that of the second best
    others: Sequence[str] = ()  # its other responses to the same prompt
    judge_score: float | None = None
    with_prompt: float | None = None  # mean log-probability of a token after the prompt
    without_prompt: float | None = None  # and after nothing


def mean(values: Numbers) -> float | None:
    """The mean; None for no values."""
    return math.fsum(values) / len(values) if values else None


def mean_log_prob(log_probs: Numbers) -> float | None:
    """(1/T) sum_t log p(y_t | x, y_<t): the log-probability, normalised by length (Malinin and Gales 2021)."""
    return mean(log_probs)


def min_log_prob(log_probs: Numbers) -> float | None:
    """min_t log p(y_t | x, y_<t): of the least sure token (Manakul et al. 2023, SelfCheckGPT)."""
    return min(log_probs) if log_probs else None


def lowest_window_log_prob(log_probs: Numbers, window: int) -> float | None:
    """min_i (1/w) sum_{t=i}^{i+w-1} log p(y_t | x, y_<t): of the least sure w tokens in a row; all where fewer.

    The lowest group confidence of Fu et al. 2025 (Deep Think with Confidence), with the chosen token's
    log-probability as a token's confidence.
    """
    if not log_probs:
        return None
    width = min(window, len(log_probs))
    return min(math.fsum(log_probs[start : start + width]) for start in range(len(log_probs) - width + 1)) / width


def entropy(entropies: Numbers) -> float | None:
    """-(1/T) sum_t H(p(. | x, y_<t)): the mean predictive entropy, negated (Malinin and Gales 2021)."""
    value = mean(entropies)
    return None if value is None else -value


def margin(margins: Numbers) -> float | None:
    """(1/T) sum_t (log p_1 - log p_2): best less second best token (Scheffer et al. 2001; Wang and Zhou 2024)."""
    return mean(margins)


def self_consistency(response: str, others: Sequence[str]) -> float | None:
    """(1/(n-1)) sum_j ROUGE-L(y, y_j): the mean ROUGE-L F1 with the teacher's n - 1 other responses to the prompt.

    The lexical similarity of Fomicheva et al. 2020 and Kuhn et al. 2023 for each response: agreement as in
    self-consistency (Wang et al. 2023) between texts. For responses of one word it is the fraction of equal ones.
    """
    return mean([rouge_l(other, response) for other in others])


def ifd(with_prompt: float | None, without_prompt: float | None) -> float | None:
    """PPL(y | x) / PPL(y): the instruction-following difficulty (Li et al. 2024), in (0, 1).

    Near 1 the prompt helps little with the response, so that there is most to learn from it. From 1 on it misleads:
    such rows, which the paper leaves out, have None.
    """
    if with_prompt is None or without_prompt is None or with_prompt <= without_prompt:
        return None
    return math.exp(without_prompt - with_prompt)


def judge_score(score: float | None) -> float | None:
    """The score that a judge gave to the response (Zheng et al. 2023, LLM-as-a-judge)."""
    return score


MEASURES: dict[str, Callable[[ConfidenceInputs], float | None]] = {
    "mean_log_prob": lambda inputs: mean_log_prob(inputs.log_probs),
    "min_log_prob": lambda inputs: min_log_prob(inputs.log_probs),
    "entropy": lambda inputs: entropy(inputs.entropies),
    "margin": lambda inputs: margin(inputs.margins),
    "self_consistency": lambda inputs: self_consistency(inputs.response, inputs.others),
    "ifd": lambda inputs: ifd(inputs.with_prompt, inputs.without_prompt),
    "judge_score": lambda inputs: judge_score(inputs.judge_score),
}


def measure_confidence(section: Confidence | LowestWindowConfidence, inputs: ConfidenceInputs) -> float | None:
    """The confidence that a section of params.yaml chooses."""
    if isinstance(section, LowestWindowConfidence):
        return lowest_window_log_prob(inputs.log_probs, section.window)
    return MEASURES[section.measure](inputs)
