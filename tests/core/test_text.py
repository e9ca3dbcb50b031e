"""Words and n-grams against closed forms."""

import pytest

from distill.core import text


def test_words_ignore_case_punctuation_and_the_kind_of_apostrophe():
    assert text.words("\u201cI CAN\u2019T,\u201d  she_said:\n2 + 2.") == ["i", "can't", "she", "said", "2", "2"]


def test_chinese_characters_are_words_each():
    assert text.words("\u871c\u8702 are bees\u871c") == ["\u871c", "\u8702", "are", "bees", "\u871c"]


def test_a_text_shorter_than_n_is_one_ngram_and_an_empty_one_none():
    assert text.ngrams(["a", "b", "c", "d"], 3) == [("a", "b", "c"), ("b", "c", "d")]
    assert text.ngrams(["a", "b"], 3) == [("a", "b")]
    assert text.ngrams([], 3) == []


def test_repetition_is_the_share_of_3_grams_that_stood_before():
    assert text.repetition("a b c a b c") == pytest.approx(1 / 4)
    assert text.repetition("Bees fly from flower to flower all day long.") == 0
    assert text.repetition("") == 0


def test_repetition_sees_loops_without_spaces():
    loop = "Bumble" * 30
    assert len(text.words(loop)) == 1
    assert text.repetition(loop) == pytest.approx(1 - 6 / (len(loop) - 11))


def test_jaccard_is_intersection_over_union():
    assert text.jaccard({("a",), ("b",)}, {("b",), ("c",)}) == pytest.approx(1 / 3)
    assert text.jaccard(set(), set()) == 1
