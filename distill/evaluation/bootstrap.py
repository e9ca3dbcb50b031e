"""Percentile bootstrap intervals over items and training seeds (Efron 1979).

The models of all seeds respond to the same items, so items and seeds are drawn independently: a resample is the mean
over the drawn seeds of the score on the drawn items. This is the pigeonhole bootstrap (Owen, Annals of Applied
Statistics 1, 2007). Drawing items again for each seed would count the difficulty of an item, which all seeds share, as
independent noise. Of n seeds, n - 1 are drawn: the variance of a mean of few seeds is then unbiased (Rao and Wu,
Journal of the American Statistical Association 83, 1988). A t-interval over the seeds' scores would say nothing of
other items. With two or three seeds every interval is rough. With one seed this is the bootstrap over items.
"""

from collections.abc import Callable, Sequence
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


def identity(values: np.ndarray) -> np.ndarray:
    """The values unchanged."""
    return values


def mean_score(numerators: np.ndarray, denominators: np.ndarray, transform: Transform) -> float:
    """The mean over seeds of transform(sum of numerators / sum of denominators), [items] or [seeds, items] each."""
    return float(np.mean(transform(numerators.sum(-1) / denominators.sum(-1))))


def ratio_interval(
    numerators: np.ndarray, denominators: np.ndarray, resamples: int, seed: int, transform: Transform = identity
) -> Estimate:
    """The mean score over seeds with its interval over items and seeds, [items] or [seeds, items] each.

    A mean is the ratio with denominators 1; perplexity is exp of the ratio of nats to tokens. The same seed draws the
    same items for every model, so their intervals are comparable.
    """
    resampled = _resample(numerators, denominators, resamples, seed, transform)
    return Estimate(mean_score(numerators, denominators, transform), *_quantiles(resampled))


def statistic_interval(
    statistics: Sequence[Callable[[np.ndarray], float]], num_items: int, resamples: int, seed: int
) -> Estimate:
    """The same for a score that is no ratio of sums: each training seed has a function of the indices of its items."""
    draws = np.random.default_rng(seed).integers(0, num_items, size=(resamples, num_items))
    scores = np.array([[statistic(indices) for indices in draws] for statistic in statistics])
    value = float(np.mean([statistic(np.arange(num_items)) for statistic in statistics]))
    return Estimate(value, *_quantiles(_mean_over_drawn_seeds(scores, seed, 0)))


def paired_difference(
    first: tuple[np.ndarray, np.ndarray],
    second: tuple[np.ndarray, np.ndarray],
    resamples: int,
    seed: int,
    transform: Transform = identity,
    same_seeds: bool = True,
) -> Estimate:
    """The mean score of `second` minus that of `first`, both (numerators, denominators) of the same items.

    Each resample draws the same items for both, so the difficulty of an item cancels out: the interval is narrower
    than two separate intervals suggest. With `same_seeds` both draw the same training seeds, otherwise independently.
    """
    counts = [ratios[0].shape[-1] for ratios in (first, second)]
    assert counts[0] == counts[1], f"paired items differ in number: {counts[0]} and {counts[1]}"
    values = [mean_score(numerators, denominators, transform) for numerators, denominators in (first, second)]
    resampled = [
        _resample(numerators, denominators, resamples, seed, transform, stream)
        for (numerators, denominators), stream in zip((first, second), (0, 0 if same_seeds else 1), strict=True)
    ]
    return Estimate(values[1] - values[0], *_quantiles(resampled[1] - resampled[0]))


def _resample(
    numerators: np.ndarray, denominators: np.ndarray, resamples: int, seed: int, transform: Transform, stream: int = 0
) -> np.ndarray:
    """The mean score of each resample, [resamples]; `seed` decides the drawn items, `seed` and `stream` the seeds."""
    tops, bottoms = np.atleast_2d(numerators), np.atleast_2d(denominators)
    items = np.random.default_rng(seed).integers(0, tops.shape[1], size=(resamples, tops.shape[1]))
    scores = np.array(
        [transform(top[items].sum(1) / bottom[items].sum(1)) for top, bottom in zip(tops, bottoms, strict=True)]
    )
    return _mean_over_drawn_seeds(scores, seed, stream)


def _mean_over_drawn_seeds(scores: np.ndarray, seed: int, stream: int) -> np.ndarray:
    """The mean over drawn training seeds of each resample, [resamples], from scores [seeds, resamples]."""
    count, resamples = scores.shape
    seeds = np.random.default_rng([seed, stream]).integers(0, count, size=(max(1, count - 1), resamples))
    return np.take_along_axis(scores, seeds, axis=0).mean(0)


def _quantiles(resampled: np.ndarray) -> tuple[float, float]:
    low, high = np.quantile(resampled, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)
