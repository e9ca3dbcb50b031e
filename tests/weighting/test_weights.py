import numpy as np
import pytest
from scipy.stats import zscore

from distill.params.weight import Confidence, ConfidenceWeights
from distill.weighting.weights import ess_fraction, length_buckets, limited_weights, standardize, summarize


def section(strength: float, max_weight: float, min_ess_fraction: float) -> ConfidenceWeights:
    """Section weight of params.yaml."""
    return ConfidenceWeights(
        kind="confidence", confidence=Confidence(measure="mean_log_prob"), strength=strength, num_length_buckets=1,
        max_weight=max_weight, min_ess_fraction=min_ess_fraction,
    )  # fmt: skip


def test_length_buckets_are_equal_in_size():
    assert length_buckets([1, 2, 3, 4, 5, 6], 3).tolist() == [0, 0, 1, 1, 2, 2]
    assert len(set(length_buckets([7, 7, 7, 7], 4).tolist())) == 1
    assert length_buckets([5, 1, 3], 1).tolist() == [0, 0, 0]


def test_lengths_are_counted_in_words_of_any_script():
    rows = [{"response": "\u871c" * count, "weight": weight} for count, weight in ((1, 0.5), (2, 1.0), (9, 1.5))]
    rows = [row | {"confidence": None} for row in rows]
    assert summarize(rows, section(0.5, 4.0, 0.5), 0.5)["correlation_with_length"] == 1


def test_scores_are_standardized_within_their_group():
    values = [-1.0, -2.0, -3.0, -10.0, -20.0]
    groups = [("a", 0)] * 3 + [("b", 0)] * 2
    scores = standardize(values, groups)
    assert scores[:3] == pytest.approx(zscore(values[:3]))
    assert scores[3:] == pytest.approx(zscore(values[3:]))


def test_unknown_confidence_and_a_group_of_one_are_neutral():
    scores = standardize([None, -1.0, -2.0, -5.0], [("a", 0)] * 3 + [("b", 0)])
    assert scores[0] == 0
    assert scores[3] == 0
    assert scores[1] == pytest.approx(1)
    assert scores[2] == pytest.approx(-1)


def test_weights_have_mean_1_and_grow_with_confidence():
    weights, strength = limited_weights(np.array([-1.0, 0.0, 1.0]), section(0.5, 4.0, 0.5))
    assert weights.mean() == pytest.approx(1)
    assert list(weights) == sorted(weights)
    assert strength == 0.5
    assert weights[2] / weights[1] == pytest.approx(np.exp(0.5))


def test_max_weight_bounds_the_ratio_of_weights():
    weights, _ = limited_weights(np.array([-9.0, 0.0, 9.0]), section(1.0, 2.0, 0.1))
    assert weights.max() / weights.min() == pytest.approx(4)


def test_the_strength_is_lowered_to_keep_the_sample_size():
    scores = np.random.default_rng(0).normal(size=1000)
    weights, strength = limited_weights(scores, section(5.0, 1000.0, 0.8))
    assert 0 < strength < 5
    assert ess_fraction(weights) == pytest.approx(0.8, abs=1e-6)


def test_the_effective_sample_size_is_kishs():
    assert ess_fraction(np.ones(5)) == 1
    assert ess_fraction(np.array([1.0, 0.0, 0.0, 0.0])) == 0.25
