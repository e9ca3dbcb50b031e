"""Scores of several continuations of one prompt."""

import pytest
import tiny

from distill.modeling import continuations
from distill.modeling.chat import Example
from distill.modeling.continuations import Candidates
from distill.modeling.scoring import score_examples

QUESTIONS = [
    Candidates([1, 5, 6], [[7, 8, 2], [9]]),
    Candidates([1, 9], [[10, 2], [3, 4, 5, 6, 7], [2]]),
    Candidates([1, 4, 4, 4, 4], [[3, 3]]),
    Candidates([1, 5, 6], [[], [4, 4]]),
]


@pytest.fixture(scope="module")
def model():
    return tiny.model(len(tiny.tokenizer()))


@pytest.mark.parametrize("batch_tokens", [1, 20, 1000])
def test_continuations_of_one_prompt_score_as_each_pair_alone(model, batch_tokens):
    by_index = dict(continuations.score_candidates(model, QUESTIONS, batch_tokens))
    assert sorted(by_index) == [0, 1, 2, 3]
    for index, question in enumerate(QUESTIONS):
        for tokens, score in zip(question.continuations, by_index[index], strict=True):
            alone = dict(score_examples(model, [Example("a", question.prompt, tokens)], 1000))[0] if tokens else None
            assert score.log_probs == pytest.approx(alone.log_probs if alone else [], abs=1e-4)
            assert score.ranked_first == (alone.ranked_first if alone else [])


def test_batches_keep_to_batch_tokens_and_similar_lengths():
    lengths = [(4, 20), (9, 5), (4, 19), (5, 5), (4, 6)]  # of prompt and longest continuation
    questions = [Candidates([1] * prompt, [[2] * 3, [2] * longest]) for prompt, longest in lengths]
    assert continuations.candidate_batches(questions, 96) == [[0, 2], [4, 1, 3]]
    assert continuations.candidate_batches(questions, 95) == [[0], [2, 4], [1, 3]]
    assert continuations.candidate_batches(questions, 1) == [[0], [2], [4], [1], [3]]
