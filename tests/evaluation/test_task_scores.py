"""Scores of one item of our lm-eval tasks."""

import math

import pytest

from distill.evaluation.lm_eval_model import GeneratedText
from distill.evaluation.tasks import scores


def generated(text: str, ended: bool = True) -> GeneratedText:
    result = GeneratedText(text)
    result.tokens, result.ended = len(text), ended
    return result


def test_rouge_l_is_the_longest_common_subsequence():
    doc = {"response": "the cat sat down"}
    assert scores.generation(doc, [generated("the cat sat down")]) == {"rouge_l": 1, "ended": 1}
    other = scores.generation(doc, [generated("the dog sat", ended=False)])
    assert other["rouge_l"] == pytest.approx(2 * (2 / 3) * (2 / 4) / (2 / 3 + 2 / 4))
    assert other["ended"] == 0
    assert scores.generation(doc, [generated("")])["rouge_l"] == 0


def test_perplexity_is_exp_of_all_nats_over_all_tokens():
    assert scores.perplexity([(10.0, 4), (2.0, 2)]) == pytest.approx(math.exp(2))
