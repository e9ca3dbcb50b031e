"""Intervals over items against scipy's bootstrap."""

import math

import numpy as np
import pytest
from scipy.stats import bootstrap

from distill.evaluation.bootstrap import paired_difference, ratio_interval

NOISE = np.random.default_rng(1)
HARD = NOISE.normal(size=120)  # what makes an item hard for both sides
ONE = HARD + NOISE.normal(scale=0.1, size=120)
OTHER = HARD + 0.05 + NOISE.normal(scale=0.1, size=120)
SAME = np.ones(120)


def test_the_interval_agrees_with_scipys():
    values = np.random.default_rng(0).gamma(2.0, size=80)
    ours = ratio_interval(values, np.ones(80), 4000, seed=1)
    theirs = bootstrap((values,), np.mean, method="percentile", n_resamples=4000, rng=2).confidence_interval
    assert ours.value == pytest.approx(values.mean())
    assert ours.ci_low == pytest.approx(theirs.low, abs=0.02)
    assert ours.ci_high == pytest.approx(theirs.high, abs=0.02)


def test_perplexity_is_exp_of_all_nats_over_all_tokens():
    nats, tokens = np.array([10.0, 2.0]), np.array([4.0, 2.0])
    assert ratio_interval(nats, tokens, 100, 0, np.exp).value == pytest.approx(math.exp(12 / 6))


def test_a_paired_difference_agrees_with_scipys_paired_bootstrap():
    ours = paired_difference((ONE, SAME), (OTHER, SAME), 20_000, 3)
    theirs = bootstrap(
        (OTHER, ONE), lambda a, b, axis: a.mean(axis) - b.mean(axis), paired=True, vectorized=True,
        method="percentile", n_resamples=20_000, rng=np.random.default_rng(5),
    ).confidence_interval  # fmt: skip
    assert ours.value == pytest.approx(OTHER.mean() - ONE.mean())
    assert (ours.ci_low, ours.ci_high) == pytest.approx((theirs.low, theirs.high), abs=5e-4)


def test_a_paired_difference_of_ratios_agrees_with_scipys():
    tokens = NOISE.integers(5, 60, size=120).astype(float)
    nats = [tokens * NOISE.uniform(2, 3, size=120) for _ in range(2)]
    ours = paired_difference((nats[0], tokens), (nats[1], tokens), 20_000, 3, np.exp)

    def difference(a, b, c, axis):
        return np.exp(b.sum(axis) / c.sum(axis)) - np.exp(a.sum(axis) / c.sum(axis))

    theirs = bootstrap(
        (*nats, tokens), difference, paired=True, vectorized=True, method="percentile", n_resamples=20_000,
        rng=np.random.default_rng(5),
    ).confidence_interval  # fmt: skip
    assert (ours.ci_low, ours.ci_high) == pytest.approx((theirs.low, theirs.high), abs=0.04)


def test_pairing_finds_a_difference_that_two_separate_intervals_hide():
    paired = paired_difference((ONE, SAME), (OTHER, SAME), 1000, 3)
    assert paired.ci_low > 0
    one, other = (ratio_interval(values, SAME, 1000, 3) for values in (ONE, OTHER))
    assert one.ci_low < other.value < one.ci_high
    assert paired.ci_high - paired.ci_low < (one.ci_high - one.ci_low) / 5


def test_the_same_scores_differ_by_exactly_nothing():
    same = paired_difference((ONE, SAME), (ONE, SAME), 1000, 3)
    assert (same.value, same.ci_low, same.ci_high) == (0, 0, 0)
