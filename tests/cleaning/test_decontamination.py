"""Shared n-grams by code compared with the n-grams themselves."""

import random

import numpy as np
import pytest

from distill.cleaning import decontamination
from distill.cleaning.decontamination import build_index, ngram_codes
from distill.core.text import ngrams, words


@pytest.mark.parametrize(("topics", "contaminated"), [(10, True), (11, False)])
def test_the_form_of_a_question_is_no_contamination(topics, contaminated):
    form = " ".join(f"word{number}" for number in range(13))
    prompts = [(number, f"{form} topic{number}") for number in range(topics)]
    index = build_index([(7, prompts[0][1])], prompts, 13)
    assert index.find_first([f"{form} topic5"]) == ((7, form) if contaminated else None)
    assert index.find_first([prompts[0][1]]) is not None


def test_codes_are_equal_if_the_ngrams_are():
    dice = random.Random(0)
    items = [dice.choice("abcd") for _ in range(400)]
    grams = ngrams(items, 5)
    assert len(set(ngram_codes(items, 5).tolist())) == len(set(grams)) < len(grams)
    assert len(set(zip(ngram_codes(items, 5).tolist(), grams, strict=True))) == len(set(grams))
    assert ngram_codes(["a", "b"], 5).tolist() == ngram_codes(["a", "b"], 2).tolist()
    assert len(ngram_codes([], 5)) == 0


def test_shared_ngrams_equal_those_of_the_exact_comparison():
    dice = random.Random(1)

    def text():
        return " ".join(dice.choice("abcde") for _ in range(dice.randint(0, 9)))

    held_out = [(number, text()) for number in range(60)]
    prompts = [(dice.randrange(30), text()) for _ in range(900)]
    sources: dict = {}
    for source, sentence in held_out:
        for gram in ngrams(words(sentence), 3):
            sources.setdefault(gram, source)
    topics = {gram: {topic for topic, sentence in prompts if gram in ngrams(words(sentence), 3)} for gram in sources}
    few = {gram: source for gram, source in sources.items() if len(topics[gram]) <= decontamination.MAX_TOPICS}
    assert 0 < len(few) < len(sources)
    index = build_index(held_out, prompts, 3)
    assert len(index.codes) == len(few)
    for _ in range(200):
        texts = [text(), text()]
        grams = [gram for sentence in texts for gram in ngrams(words(sentence), 3)]
        first = next((gram for gram in grams if gram in few), None)
        assert index.find_first(texts) == (None if first is None else (few[first], " ".join(first)))


def test_an_index_without_held_out_texts_finds_nothing():
    index = build_index([], [(0, "a b c d")], 3)
    assert index.find_first(["a b c d"]) is None
    assert np.array_equal(index.codes, [])
