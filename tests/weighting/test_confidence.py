"""Each measure of confidence against its formula on literal numbers."""

import math
from typing import get_args

import pytest
from rouge_score.rouge_scorer import RougeScorer

from distill.params.weight import Confidence, LowestWindowConfidence
from distill.weighting import confidence
from distill.weighting.confidence import (
    MEASURES,
    ConfidenceInputs,
    lowest_window_log_prob,
    measure_confidence,
    self_consistency,
)

LOG_PROBS = [-1.0, -4.0, -3.0, -0.5]


def test_params_accept_every_measure():
    assert sorted(get_args(Confidence.model_fields["measure"].annotation)) == sorted(MEASURES)


def test_log_probs_give_mean_minimum_and_lowest_window():
    known = ConfidenceInputs("a b", log_probs=LOG_PROBS)
    assert MEASURES["mean_log_prob"](known) == pytest.approx(-8.5 / 4)
    assert MEASURES["min_log_prob"](known) == -4
    assert lowest_window_log_prob(LOG_PROBS, 2) == pytest.approx(-3.5)
    assert lowest_window_log_prob(LOG_PROBS, 1) == -4
    assert lowest_window_log_prob(LOG_PROBS, 9) == pytest.approx(-8.5 / 4)


def test_entropy_lowers_and_margin_raises_confidence():
    assert MEASURES["entropy"](ConfidenceInputs("a", entropies=[0.0, 3.0])) == -1.5
    assert MEASURES["margin"](ConfidenceInputs("a", margins=[0.0, 3.0])) == 1.5


def test_self_consistency_is_the_mean_rouge_l():
    others = ["the cat sat on the mat", "dogs bark"]
    plain = RougeScorer(["rougeL"])
    expected = sum(plain.score(other, "a cat sat on a mat")["rougeL"].fmeasure for other in others) / 2
    assert self_consistency("a cat sat on a mat", others) == pytest.approx(expected)
    assert self_consistency("Yes!", ["yes", "no", "Yes.", "no"]) == 0.5


def test_self_consistency_sees_words_of_any_script():
    assert self_consistency("\u871c\u8702", ["\u871c\u8702"]) == 1
    assert self_consistency("\u043f\u0447\u0435\u043b\u0430", ["\u043c\u0451\u0434"]) == 0


def test_ifd_is_the_ratio_of_perplexities():
    with_prompt, without_prompt = -1.0, -3.0
    expected = math.exp(-with_prompt) / math.exp(-without_prompt)
    assert MEASURES["ifd"](ConfidenceInputs("a", with_prompt=-1.0, without_prompt=-3.0)) == pytest.approx(expected)
    assert MEASURES["ifd"](ConfidenceInputs("a", with_prompt=-3.0, without_prompt=-1.0)) is None


def test_judge_scores_are_unchanged():
    assert MEASURES["judge_score"](ConfidenceInputs("a", judge_score=7.5)) == 7.5


@pytest.mark.parametrize("name", MEASURES)
def test_missing_inputs_give_no_confidence(name):
    assert MEASURES[name](ConfidenceInputs("an answer")) is None
    assert MEASURES[name](ConfidenceInputs("", log_probs=[], entropies=[], margins=[])) is None


@pytest.mark.parametrize("name", [*MEASURES, "lowest_window_log_prob"])
def test_each_measure_cites_its_source(name):
    assert any(f"{year}" in getattr(confidence, name).__doc__ for year in range(1990, 2027))


def test_the_section_chooses_measure_and_window():
    inputs = ConfidenceInputs("a b", log_probs=LOG_PROBS)
    window = LowestWindowConfidence(measure="lowest_window_log_prob", window=2)
    assert measure_confidence(window, inputs) == pytest.approx(-3.5)
    assert measure_confidence(Confidence(measure="min_log_prob"), inputs) == -4
    assert measure_confidence(window, ConfidenceInputs("a b")) is None
    assert measure_confidence(window, ConfidenceInputs("", log_probs=[])) is None
