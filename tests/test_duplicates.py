"""Near duplicates against the comparison of all pairs."""

import random

import numpy as np
import pytest

from distill import text
from distill.duplicates import Kept, Meetings, Sketcher, bands


def test_bands_are_as_long_as_a_missed_pair_in_a_thousand_allows():
    assert bands(0.9, 128) == (16, 8)
    assert (1 - 0.9**8) ** 16 < 1e-3 < (1 - 0.9**9) ** 14
    assert bands(1.0, 128) == (2, 64)
    assert bands(0.01, 16) == (16, 1)


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
        next((b for b in range(a) if text.jaccard(shingles[a], shingles[b]) >= threshold), None)
        for a in range(len(texts))
    ]
    sketcher = Sketcher(threshold, 128)
    kept = Kept(np.array([sketcher.keys(one) for one in texts], np.uint32).T, threshold, texts.__getitem__)
    found = []
    for number in range(len(texts)):
        found.append(kept.similar(number))
        kept.keep(number)
    assert any(exact)
    assert found == exact


def test_equal_keys_of_unlike_texts_make_no_duplicates():
    texts = ["one two three", "four five six", "ONE two, three", "One  two three"]
    kept = Kept(np.zeros((3, 4), np.uint32), 0.9, texts.__getitem__)
    found = []
    for number in range(4):
        found.append((kept.same(number), kept.similar(number)))
        if found[-1] == (None, None):
            kept.keep(number)
    assert found == [(None, None), (None, None), (None, 0), (0, 0)]


def test_texts_meet_in_the_columns_where_their_keys_are_equal():
    meetings = Meetings(np.array([[7, 7, 1, 2], [5, 9, 5, 9]], np.uint32))
    groups = [meetings.of(text) for text in range(4)]
    assert [len(some) for some in groups] == [2, 2, 1, 1]
    assert [(a, b) for a in range(4) for b in range(a) if set(groups[a]) & set(groups[b])] == [(1, 0), (2, 0), (3, 1)]
    assert Meetings(np.empty((2, 0), np.uint32)) is not None
