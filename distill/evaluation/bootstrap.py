"""Percentile bootstrap intervals over items and training seeds (Efron 1979).

The models of all seeds answer the same items, so that items and seeds are drawn independently of each other: a
resample is the mean over the drawn seeds of the score on the drawn items, the pigeonhole bootstrap (Owen, Annals of
Applied Statistics 1, 2007). Drawing items anew for each seed would take what makes an item hard for all of them for
independent noise. Of n seeds n - 1 are drawn, which leaves the variance of a mean of few unbiased (Rao and Wu,
Journal of the American Statistical Association 83, 1988). A t-interval over the seeds' scores would say nothing of
other items; of two or three seeds, though, no interval knows much. With one seed it is the bootstrap over items.
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


def mean_score(numerators: np.ndarray, denominators: np.ndarray, transform: Transform) -> float:
    """The mean over seeds of transform(sum of numerators / sum of denominators), [items] or [seeds, items] each."""
    return float(np.mean(transform(numerators.sum(-1) / denominators.sum(-1))))


def ratio_interval(
    numerators: np.ndarray,
    denominators: np.ndarray,
    resamples: int,
    seed: int,
    transform: Transform = lambda values: values,
) -> Estimate:
    """The mean score over seeds with its interval over resampled items and seeds, [items] or [seeds, items] each.

    A mean is the ratio with denominators 1, a perplexity that of nats to tokens with exp. The same seed draws
    the same items for every model, so that intervals are comparable.
    """
    drawn = _resampled(numerators, denominators, resamples, seed, transform)
    return Estimate(mean_score(numerators, denominators, transform), *_ends(drawn))


def statistic_interval(
    statistics: Sequence[Callable[[np.ndarray], float]], items: int, resamples: int, seed: int
) -> Estimate:
    """The same for a score that is no ratio of sums; each training seed's is a function of the places of its items."""
    drawn = np.random.default_rng(seed).integers(0, items, size=(resamples, items))
    scores = np.array([[statistic(places) for places in drawn] for statistic in statistics])
    value = float(np.mean([statistic(np.arange(items)) for statistic in statistics]))
    return Estimate(value, *_ends(_over_seeds(scores, seed, 0)))


def paired_difference(
    one: tuple[np.ndarray, np.ndarray],
    other: tuple[np.ndarray, np.ndarray],
    resamples: int,
    seed: int,
    transform: Transform = lambda values: values,
    same_seeds: bool = True,
) -> Estimate:
    """How much higher the `other` mean score is than the first, both (numerators, denominators) of the same items.

    Each resample draws the same items for both, so that what makes an item hard for both cancels out: the
    interval is narrower than two separate ones suggest. Training seeds are drawn alike where both have the same,
    and independently where not.
    """
    counts = [parts[0].shape[-1] for parts in (one, other)]
    assert counts[0] == counts[1], f"paired items differ in number: {counts[0]} and {counts[1]}"
    first, second = (mean_score(top, bottom, transform) for top, bottom in (one, other))
    drawn = [
        _resampled(top, bottom, resamples, seed, transform, stream)
        for (top, bottom), stream in zip((one, other), (0, 0 if same_seeds else 1), strict=True)
    ]
    return Estimate(second - first, *_ends(drawn[1] - drawn[0]))


def _resampled(
    numerators: np.ndarray, denominators: np.ndarray, resamples: int, seed: int, transform: Transform, stream: int = 0
) -> np.ndarray:
    """The mean score of each resample, [resamples]; `seed` decides which items are drawn, with `stream` which seeds."""
    tops, bottoms = np.atleast_2d(numerators), np.atleast_2d(denominators)
    items = np.random.default_rng(seed).integers(0, tops.shape[1], size=(resamples, tops.shape[1]))
    scores = np.array(
        [transform(top[items].sum(1) / bottom[items].sum(1)) for top, bottom in zip(tops, bottoms, strict=True)]
    )
    return _over_seeds(scores, seed, stream)


def _over_seeds(scores: np.ndarray, seed: int, stream: int) -> np.ndarray:
    """The mean over drawn training seeds for each resample, [resamples], from scores [seeds, resamples]."""
    count, resamples = scores.shape
    seeds = np.random.default_rng([seed, stream]).integers(0, count, size=(max(1, count - 1), resamples))
    return np.take_along_axis(scores, seeds, axis=0).mean(0)


def _ends(drawn: np.ndarray) -> tuple[float, float]:
    low, high = np.quantile(drawn, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)
