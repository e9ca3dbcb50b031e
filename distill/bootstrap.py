"""Percentile bootstrap intervals over items (Efron 1979)."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

LEVEL = 0.95


@dataclass(frozen=True)
class Estimate:
    """A score and its 95% interval."""

    value: float
    ci_low: float
    ci_high: float


def ratio_interval(
    numerators: np.ndarray,
    denominators: np.ndarray,
    resamples: int,
    seed: int,
    transform: Callable[[np.ndarray], np.ndarray] = lambda values: values,
) -> Estimate:
    """transform(sum of numerators / sum of denominators) with its interval over resampled items, [items] each.

    A mean is the ratio with denominators 1, a perplexity that of nats to tokens with exp. The same seed draws
    the same items for every model, so that intervals are comparable.
    """
    items = np.random.default_rng(seed).integers(0, len(numerators), size=(resamples, len(numerators)))
    drawn = transform(numerators[items].sum(1) / denominators[items].sum(1))
    low, high = np.quantile(drawn, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Estimate(float(transform(numerators.sum() / denominators.sum())), float(low), float(high))
