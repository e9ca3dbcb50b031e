"""Words of any script, n-grams and similarities against closed forms."""

import re
import unicodedata

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from rouge_score.rouge_scorer import RougeScorer

from distill.core import text


def test_words_ignore_case_and_punctuation():
    assert text.words("\u201cI CAN\u2019T,\u201d  she_said:\n2 + 2.") == ["i", "can't", "she", "said", "2", "2"]


def test_each_chinese_character_is_a_word():
    assert text.words("\u871c\u8702 are bees\u871c") == ["\u871c", "\u8702", "are", "bees", "\u871c"]


def test_a_text_shorter_than_n_is_one_ngram():
    assert text.ngrams(["a", "b", "c", "d"], 3) == [("a", "b", "c"), ("b", "c", "d")]
    assert text.ngrams(["a", "b"], 3) == [("a", "b")]
    assert text.ngrams([], 3) == []


def test_repetition_is_the_fraction_of_duplicate_3_grams():
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


def test_combining_marks_belong_to_their_word():
    hindi = "\u0928\u092e\u0938\u094d\u0924\u0947 \u0926\u0941\u0928\u093f\u092f\u093e"
    tamil = "\u0ba4\u0bae\u0bbf\u0bb4\u0bcd \u0bae\u0bca\u0bb4\u0bbf"
    vowelled_arabic = "\u0643\u064e\u062a\u064e\u0628\u064e \u0648\u064e\u0644\u064e\u062f\u064c"
    sinhala = "\u0dc1\u0dca\u200d\u0dbb\u0dd3 \u0dbd\u0d82\u0d9a\u0dcf"  # with a joiner inside
    for phrase in (hindi, tamil, vowelled_arabic, sinhala):
        assert text.words(f"{phrase}\u0964") == text.normalise(phrase).split()


def test_a_thai_letter_with_its_marks_is_a_word():
    assert text.words("\u0e19\u0e35\u0e48 a") == ["\u0e19\u0e35\u0e48", "a"]
    assert text.words("\u0e01\u0e34\u0e19\u0e02") == ["\u0e01\u0e34", "\u0e19", "\u0e02"]


HINDI = (  # ten words between spaces, with vowel signs and killers
    "\u0915\u094d\u092f\u093e \u0906\u092a \u092e\u0941\u091d\u0947 \u0939\u093f\u0928\u094d\u0926\u0940 "
    "\u092e\u0947\u0902 \u090f\u0915 \u091b\u094b\u091f\u0940 \u0915\u0939\u093e\u0928\u0940 "
    "\u0938\u0941\u0928\u093e \u0938\u0915\u0924\u0947"
)


def test_ten_hindi_words_are_ten_words():
    assert len(text.words(HINDI)) == len(HINDI.split()) == 10


@pytest.mark.parametrize(
    ("phrase", "count"),
    [
        ("\u30d3\u30fc\u30eb\u3092", 4),  # kana with a long vowel
        ("\U00020bb7\u91ce\u5bb6", 3),  # a Han character beyond the first plane
        ("\u4f50\u3005\u6728", 3),  # with the iteration mark
        ("\ua2a2\ua2a2", 2),  # Yi
        ("\u1019\u103c\u1014\u103a\u1019\u102c", 3),  # Burmese: letters with medials, vowels and killer
        ("\u179f\u17bd\u179f\u17d2\u178f\u17b8", 3),  # Khmer
        ("\u30fb", 0),  # a dot between names is punctuation
        ("\u0645\u06cc\u200c\u0631\u0648\u0645", 1),  # Persian with a non-joiner
        ("co\u00adoperate", 1),  # soft hyphen
        ("\u1828\u180b\u182d", 1),  # Mongolian with a variation selector
        ("a\u200bb", 2),  # zero-width space
        ("\ud55c\uad6d\uc5b4 \ub9d0", 2),  # Korean
    ],
)
def test_words_of_scripts_are_counted_by_their_own_spaces(phrase, count):
    assert len(text.words(phrase)) == count
    assert len(text.words(unicodedata.normalize("NFD", phrase))) == count


def test_direction_marks_and_invisible_characters_are_no_text():
    assert text.words("\u200f\u0645\u0631\u062d\u0628\u0627\u202c\ufeff") == ["\u0645\u0631\u062d\u0628\u0627"]
    assert text.normalise("\u2066Bees\u2069 fly") == "bees fly"


def test_upper_and_lower_case_of_greek_are_one_word():
    lower = "\u03b1\u0390\u03b4\u03b9\u03bf\u03c2"
    assert text.words(lower) == text.words(lower.upper())


@given(st.text())
def test_a_normalised_text_stays_as_it_is(plain):
    normalised = text.normalise(plain)
    assert text.normalise(normalised) == normalised


@given(st.text(), st.integers(1, 5))
def test_parts_by_words_lose_nothing_and_keep_the_limit(plain, max_words):
    parts = list(text.split_by_words(plain, max_words))
    assert "".join("".join(parts).split()) == "".join(plain.split())
    assert all(len(text.WORD.findall(part)) <= max_words for part in parts)


def test_a_text_without_spaces_is_split_at_its_words():
    assert list(text.split_by_words("\u871c\u8702\u5728\u98de a b", 3)) == ["\u871c\u8702\u5728", "\u98de a b"]


def test_emoji_leave_no_words_and_no_marks():
    assert text.words("1\ufe0f\u20e3 love \u2764\ufe0f bees \U0001f469\u200d\U0001f680") == ["1", "love", "bees"]


def test_the_dot_of_a_turkish_capital_i_belongs_to_its_word():
    assert text.words("\u0130stanbul") == ["i\u0307stanbul"]


@given(st.text(st.characters(max_codepoint=0x24F)))
def test_latin_words_end_at_non_word_characters(plain):
    normalised = text.normalise(plain)
    assume(not any(unicodedata.combining(character) for character in normalised))
    assert text.words(plain) == re.findall(r"[^\W_]+(?:'[^\W_]+)*", normalised)


TEXTS = {
    "Greek": "\u0397 \u03bc\u03ad\u03bb\u03b9\u03c3\u03c3\u03b1 \u03c0\u03b5\u03c4\u03ac\u03b5\u03b9",
    "Russian": "\u041f\u0447\u0451\u043b\u044b \u043b\u0435\u0442\u0430\u044e\u0442",
    "Hindi": "\u092e\u0927\u0941\u092e\u0915\u094d\u0916\u0940 \u0909\u0921\u093c\u0924\u0940 \u0939\u0948",
    "Chinese": "\u871c\u8702\u5728\u98de",
}


@pytest.mark.parametrize("language", TEXTS)
def test_equal_texts_have_rouge_l_1_in_any_script(language):
    assert text.rouge_l(TEXTS[language], TEXTS[language]) == 1
    assert text.rouge_l(TEXTS[language], "bees fly") == 0
    assert 0 < text.rouge_l(TEXTS[language], f"{TEXTS[language]} bees") < 1


@given(st.lists(st.sampled_from("abcde")), st.lists(st.sampled_from("abcde")))
def test_rouge_l_is_exactly_that_of_rouge_score(reference, response):
    expected = RougeScorer(["rougeL"]).score(" ".join(reference), " ".join(response))["rougeL"].fmeasure
    assert text.rouge_l(" ".join(reference), " ".join(response)) == expected
    assert text.lcs_f1(reference, response) == expected
