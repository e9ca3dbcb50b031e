"""Words, n-grams and near duplicates against closed forms and the comparison of all pairs."""

import random

import pytest

from distill import text


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


def test_bands_are_as_long_as_a_missed_pair_in_a_thousand_allows():
    assert text.bands(0.9, 128) == (16, 8)
    assert (1 - 0.9**8) ** 16 < 1e-3 < (1 - 0.9**9) ** 14
    assert text.bands(1.0, 128) == (2, 64)
    assert text.bands(0.01, 16) == (16, 1)


@pytest.mark.parametrize("threshold", [0.3, 0.6, 0.9, 1.0])
def test_similar_texts_are_those_of_the_exact_comparison_of_all_pairs(threshold):
    dice = random.Random(1)
    texts = []
    for _ in range(30):
        base = [f"w{dice.randrange(500)}" for _ in range(30)]
        for changes in (0, 0, 1, 2, 4, 8):
            copy = list(base)
            for _ in range(changes):
                copy[dice.randrange(30)] = f"w{dice.randrange(500)}"
            texts.append(" ".join(copy))
    shingles = [set(text.ngrams(one.split(), 3)) for one in texts]
    exact = [
        next((str(b) for b in range(a) if text.jaccard(shingles[a], shingles[b]) >= threshold), None)
        for a in range(len(texts))
    ]
    kept = text.Kept(threshold, 128)
    found = []
    for place, one in enumerate(texts):
        print_of_one = kept.fingerprint(one)
        found.append(kept.similar(print_of_one))
        kept.add(str(place), print_of_one)
    assert any(exact)
    assert found == exact


@pytest.mark.parametrize(("topics", "contaminated"), [(10, True), (11, False)])
def test_the_wording_of_a_question_form_is_no_contamination(topics, contaminated):
    form = " ".join(f"word{number}" for number in range(13))
    prompts = [(f"topic{number}", f"{form} topic{number}") for number in range(topics)]
    forbidden = text.forbidden_ngrams([("held out", prompts[0][1])], prompts, 13)
    assert (text.shared_ngram([f"{form} topic5"], forbidden, 13) is not None) is contaminated
    assert text.shared_ngram([prompts[0][1]], forbidden, 13) is not None
