"""The choices of the multiple choice."""

import pytest
from held_out_rows import row

from distill.core.errors import UserError
from distill.evaluation.multiple_choice import draw_choices, subset


def test_wrong_choices_have_similar_lengths_and_different_texts():
    pool = [row(number, "x" * (10 + number // 4) + str(number)) for number in range(60)]
    pool[7]["response"] = pool[8]["response"]
    choices = draw_choices(pool, pool, seed=3)
    for own, (indices, right) in enumerate(choices):
        assert indices[right] == own
        texts = [pool[index]["response"] for index in indices]
        assert len(set(texts)) == 4
        assert max(map(len, texts)) - min(map(len, texts)) <= 6
    assert choices == draw_choices(pool, pool, seed=3)
    assert choices != draw_choices(pool, pool, seed=4)
    assert {right for _, right in choices} == {0, 1, 2, 3}


def test_another_response_to_the_same_prompt_is_no_wrong_choice():
    pool = [row(number, f"answer number {number}") for number in range(6)]
    pool[1]["prompt_id"] = pool[0]["prompt_id"]
    for seed in range(20):
        (indices, _), *_ = draw_choices(pool[:1], pool, seed)
        assert 1 not in indices


def test_too_few_responses_are_refused():
    with pytest.raises(UserError, match=r"needs 3 different responses.*'r0' has 1\. Raise clean\.test_fraction"):
        draw_choices([row(0, "a")], [row(0, "a"), row(1, "b")], 0)


def test_the_seed_draws_the_same_items_for_all_models():
    rows = [row(number, "x") for number in range(50)]
    assert subset(rows, 10, 1) == subset(rows, 10, 1)
    assert subset(rows, 10, 1) != subset(rows, 10, 2)
    assert subset(rows, 99, 1) == rows
