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


def test_perplexity_of_any_loss_is_a_finite_number():
    assert math.isfinite(scores.perplexity([(1e9, 2)]))


def test_a_choice_is_normalized_by_its_text_without_its_end_of_turn():
    """-6 nats for 3 characters and -15 for 10: per character the second one is likelier, with the marker the first."""
    doc = {"choice_responses": ["yes", "absolutely"], "choices": ["yes<|im_end|>", "absolutely<|im_end|>"], "answer": 1}
    assert scores.choice(doc, [(-6.0, False), (-15.0, False)]) == {"acc": 0, "acc_norm": 1}
    assert -6 / len(doc["choices"][0]) > -15 / len(doc["choices"][1])
