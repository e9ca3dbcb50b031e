"""Metrics as ratios of sums over items, made of the columns of metrics/items.csv."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from distill.core.numbers import MAX_EXPONENT
from distill.evaluation.bootstrap import Estimate, Transform, identity, mean_score, ratio_interval
from distill.evaluation.multiple_choice import CHANCE


@dataclass(frozen=True)
class Metric:
    """transform(sum of column `numerator` / sum of column `denominator`); no denominator: the mean of `numerator`."""

    numerator: str
    denominator: str | None = None
    transform: Transform = identity

    def ratio(self, items: pd.DataFrame) -> tuple[np.ndarray, np.ndarray]:
        """Numerators and denominators of the items that have this metric, [items] each."""
        rows = items[items[self.numerator].notna()]
        denominators = np.ones(len(rows)) if self.denominator is None else rows[self.denominator].to_numpy(float)
        return rows[self.numerator].to_numpy(float), denominators

    def ratios(self, seeds: Sequence[pd.DataFrame]) -> tuple[np.ndarray, np.ndarray]:
        """The same of each training seed's items, all in one order, [seeds, items] each."""
        numerators, denominators = zip(*map(self.ratio, seeds), strict=True)
        return np.stack(numerators), np.stack(denominators)

    def value(self, numerators: np.ndarray, denominators: np.ndarray) -> float:
        """The metric's value: the mean over the seeds where there are several."""
        return mean_score(numerators, denominators, self.transform)


def metrics(chance: float) -> dict[str, Metric]:
    """Every metric by name; `chance` is the accuracy of a guess."""
    return {
        "accuracy": Metric("correct"),
        "accuracy_norm": Metric("correct_norm"),
        "accuracy_above_chance": Metric("correct", transform=lambda accuracy: (accuracy - chance) / (1 - chance)),
        "perplexity": Metric("nll", "tokens", lambda nats: np.exp(np.minimum(nats, MAX_EXPONENT))),
        "bits_per_byte": Metric("nll", "bytes", lambda nats: nats / np.log(2)),
        "top1_agreement": Metric("top1_tokens", "tokens"),
        "rouge_l": Metric("rouge_l"),
        "token_match": Metric("matching_tokens", "longer_length"),
    }


def chance_accuracy(class_labels: Sequence[str] | None) -> float:
    """The accuracy of a guess among the class labels; without them, among the choices of a prompt."""
    return CHANCE if class_labels is None else 1 / len(class_labels)


def estimate_metrics(seeds: Sequence[pd.DataFrame], resamples: int, seed: int, chance: float) -> dict[str, Estimate]:
    """Every metric of one model with its interval, from the items of each of its training seeds."""
    return {
        name: ratio_interval(*metric.ratios(seeds), resamples, seed, metric.transform)
        for name, metric in metrics(chance).items()
    }
