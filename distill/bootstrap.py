"""Percentile bootstrap intervals over items (Efron 1979)."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

LEVEL = 0.95

Transform = Callable[[np.ndarray], np.ndarray]


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
    transform: Transform = lambda values: values,
) -> Estimate:
    """transform(sum of numerators / sum of denominators) with its interval over resampled items, [items] each.

    A mean is the ratio with denominators 1, a perplexity that of nats to tokens with exp. The same seed draws
    the same items for every model, so that intervals are comparable.
    """
    drawn = _resampled(numerators, denominators, resamples, seed, transform)
    value = float(transform(numerators.sum() / denominators.sum()))
    return Estimate(value, *_ends(drawn))


def paired_difference(
    one: tuple[np.ndarray, np.ndarray],
    other: tuple[np.ndarray, np.ndarray],
    resamples: int,
    seed: int,
    transform: Transform = lambda values: values,
) -> Estimate:
    """How much higher the `other` ratio is than the first, both (numerators, denominators) of the same items.

    Each resample draws the same items for both, so that what makes an item hard for both cancels out: the
    interval is narrower than two separate ones suggest.
    """
    assert len(one[0]) == len(other[0]), f"paired items differ in number: {len(one[0])} and {len(other[0])}"
    first, second = (float(transform(top.sum() / bottom.sum())) for top, bottom in (one, other))
    drawn = [_resampled(top, bottom, resamples, seed, transform) for top, bottom in (one, other)]
    return Estimate(second - first, *_ends(drawn[1] - drawn[0]))


def _resampled(
    numerators: np.ndarray, denominators: np.ndarray, resamples: int, seed: int, transform: Transform
) -> np.ndarray:
    """The transformed ratio of each resample, [resamples]; the seed alone decides which items are drawn."""
    items = np.random.default_rng(seed).integers(0, len(numerators), size=(resamples, len(numerators)))
    return transform(numerators[items].sum(1) / denominators[items].sum(1))


def _ends(drawn: np.ndarray) -> tuple[float, float]:
    low, high = np.quantile(drawn, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)
