"""How much each sample counts: the teacher's confidence as a weight with mean 1."""

import math
from collections.abc import Sequence

import numpy as np

BISECTIONS = 40  # halvings of the interval for the strength: 1e-12 of it


def buckets(lengths: Sequence[int], count: int) -> np.ndarray:
    """The length bucket of each sample, [samples]: `count` buckets of equal size by rank, equal lengths together."""
    values = np.asarray(lengths)
    edges = np.quantile(values, np.linspace(0, 1, count + 1)[1:-1]) if len(values) else []
    return np.searchsorted(edges, values, side="left")


def standardise(confidence: Sequence[float | None], groups: Sequence[tuple[str, int]]) -> np.ndarray:
    """Confidence less its group's mean, in its group's standard deviations, [samples].

    A group is (teacher, length bucket): a mean log-probability favours long answers and differs between
    teachers. Unknown confidence, and a group without spread, give 0: a neutral sample.
    """
    values = np.array([math.nan if value is None else value for value in confidence], dtype=float)
    result = np.zeros(len(values))
    for group in sorted(set(groups)):
        members = np.array([index for index, other in enumerate(groups) if other == group])
        known = members[~np.isnan(values[members])]
        spread = values[known].std() if len(known) > 1 else 0.0
        if spread > 0:
            result[known] = (values[known] - values[known].mean()) / spread
    return result


def effective_share(weights: np.ndarray) -> float:
    """Kish's effective sample size as a share of the samples: (sum w)^2 / (n sum w^2), in (0, 1]."""
    return float(weights.sum() ** 2 / (len(weights) * (weights**2).sum()))


def exponential(scores: np.ndarray, strength: float, clip: float) -> np.ndarray:
    """exp(strength x score) clipped to [1 / clip, clip], scaled to mean 1."""
    raw = np.clip(np.exp(np.clip(strength * scores, -50, 50)), 1 / clip, clip)
    return raw / raw.mean()


def weights(scores: np.ndarray, strength: float, clip: float, min_effective_share: float) -> tuple[np.ndarray, float]:
    """The weights, [samples], and the strength used: the largest up to `strength` that keeps the effective share."""
    if effective_share(exponential(scores, strength, clip)) >= min_effective_share:
        return exponential(scores, strength, clip), strength
    low, high = 0.0, strength
    for _ in range(BISECTIONS):
        middle = (low + high) / 2
        if effective_share(exponential(scores, middle, clip)) >= min_effective_share:
            low = middle
        else:
            high = middle
    return exponential(scores, low, clip), low
