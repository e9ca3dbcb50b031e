"""Each measure of confidence against its formula on literal numbers."""

import math
from typing import get_args

import pytest
from rouge_score.rouge_scorer import RougeScorer

from distill.params.weight import Confidence
from distill.weighting import confidence as measures
from distill.weighting.confidence import MEASURES, Evidence

LOG_PROBS = [-1.0, -4.0, -3.0, -0.5]


def test_params_take_the_measures_that_there_are():
    assert get_args(Confidence) == tuple(MEASURES)


def test_a_measure_of_log_probabilities_is_the_mean_the_least_or_the_least_window():
    known = Evidence("a b", log_probs=LOG_PROBS)
    assert MEASURES["mean_log_prob"](known, 2) == pytest.approx(-8.5 / 4)
    assert MEASURES["min_log_prob"](known, 2) == -4
    assert MEASURES["lowest_window_log_prob"](known, 2) == pytest.approx(-3.5)
    assert MEASURES["lowest_window_log_prob"](known, 1) == -4
    assert MEASURES["lowest_window_log_prob"](known, 9) == pytest.approx(-8.5 / 4)


def test_more_entropy_is_less_confidence_and_more_margin_is_more():
    assert MEASURES["entropy"](Evidence("a", entropies=[0.0, 3.0]), 1) == -1.5
    assert MEASURES["margin"](Evidence("a", margins=[0.0, 3.0]), 1) == 1.5


def test_self_consistency_is_the_mean_rouge_l_with_the_other_answers():
    others = ["the cat sat on the mat", "dogs bark"]
    plain = RougeScorer(["rougeL"])
    wanted = sum(plain.score(other, "a cat sat on a mat")["rougeL"].fmeasure for other in others) / 2
    assert measures.self_consistency("a cat sat on a mat", others) == pytest.approx(wanted)
    assert measures.self_consistency("Yes!", ["yes", "no", "Yes.", "no"]) == 0.5


def test_self_consistency_sees_words_of_any_script():
    assert measures.self_consistency("\u871c\u8702", ["\u871c\u8702"]) == 1
    assert measures.self_consistency("\u043f\u0447\u0435\u043b\u0430", ["\u043c\u0451\u0434"]) == 0


def test_ifd_is_the_ratio_of_perplexities_where_the_prompt_helps():
    with_prompt, without_prompt = -1.0, -3.0
    wanted = math.exp(-with_prompt) / math.exp(-without_prompt)
    assert MEASURES["ifd"](Evidence("a", with_prompt=-1.0, without_prompt=-3.0), 1) == pytest.approx(wanted)
    assert MEASURES["ifd"](Evidence("a", with_prompt=-3.0, without_prompt=-1.0), 1) is None


def test_the_score_of_a_judge_is_taken_as_it_is():
    assert MEASURES["judge_score"](Evidence("a", judge_score=7.5), 1) == 7.5


@pytest.mark.parametrize("name", MEASURES)
def test_a_measure_of_what_is_not_known_is_none(name):
    assert MEASURES[name](Evidence("an answer"), 4) is None
    assert MEASURES[name](Evidence("", log_probs=[], entropies=[], margins=[]), 4) is None


@pytest.mark.parametrize("name", MEASURES)
def test_each_measure_is_a_function_that_says_where_it_comes_from(name):
    assert any(f"{year}" in getattr(measures, name).__doc__ for year in range(1990, 2027))
