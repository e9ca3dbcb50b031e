"""Words of any script, their n-grams, and similarities of texts."""

import unicodedata
from collections.abc import Hashable, Sequence
from functools import lru_cache

import regex
from rapidfuzz.distance import LCSseq

APOSTROPHES = str.maketrans(dict.fromkeys("\u2018\u2019\u02bc", "'"))
# Kana, Han, Thai, Lao, Khmer and Burmese are written without spaces: each of their letters counts as a word.
UNSPACED = r"[\u3040-\u30ff\u3400-\u9fff[\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}&&\p{L}]]"
LETTER = r"[\p{L}\p{N}]"
MARK = r"[\p{Mn}\p{Mc}\p{Join_Control}--\p{Variation_Selector}]"  # accents, vowel signs, joiners: part of their word
WORD = regex.compile(
    rf"{UNSPACED}{MARK}*|[{LETTER}--{UNSPACED}][[{LETTER}{MARK}]--{UNSPACED}]*(?:'[{LETTER}{MARK}]+)*", regex.VERSION1
)
WORD_NGRAM = 3
CHARACTER_NGRAM = 12
Gram = tuple[str, ...]


def normalise(text: str) -> str:
    """The text in one Unicode form (NFKC), case folded, with straight apostrophes and single spaces."""
    return " ".join(unicodedata.normalize("NFKC", text).casefold().translate(APOSTROPHES).split())


def words(text: str) -> list[str]:
    """The words of the normalised text, without punctuation: `I can't.` gives `i`, `can't`.

    A combining mark belongs to its letter.
    """
    return list(_words(text))


@lru_cache(8)  # cleaning asks for those of one text many times in a row
def _words(text: str) -> tuple[str, ...]:
    return tuple(WORD.findall(normalise(text)))


def ngrams(items: Sequence[str], n: int) -> list[Gram]:
    """The n-grams in order; all items as one where there are fewer than n, nothing where there are none."""
    if len(items) < n:
        return [tuple(items)] if items else []
    return [tuple(items[place : place + n]) for place in range(len(items) - n + 1)]


def duplicate_share(grams: Sequence[Hashable]) -> float:
    """The share of the grams that stood before in the same sequence: 1 - distinct / all, 0 for none."""
    return 1 - len(set(grams)) / len(grams) if grams else 0.0


def repetition(text: str) -> float:
    """How much of a text repeats itself, from 0 (nothing said twice) towards 1 (a loop).

    The larger of two shares of n-grams that stood before in it (the duplicate n-grams of Gopher, Rae et al.
    2021, section A1.1): of its word 3-grams, for sentences that loop, and of its character 12-grams, for
    loops without spaces.
    """
    plain = normalise(text)
    characters = [plain[place : place + CHARACTER_NGRAM] for place in range(len(plain) - CHARACTER_NGRAM + 1)]
    return max(duplicate_share(ngrams(words(text), WORD_NGRAM)), duplicate_share(characters))


def opens_with(text: str, opening: str) -> bool:
    """Whether the first words of a text are those of `opening`: "As an AI" opens no "As an airline".

    Case, quotes, punctuation and the kind of apostrophe do not matter. An opening without words opens nothing.
    """
    first = words(opening)
    return bool(first) and words(text)[: len(first)] == first


def jaccard(one: set[Gram], other: set[Gram]) -> float:
    """|A and B| / |A or B|; 1 for two empty sets."""
    return len(one & other) / len(one | other) if one | other else 1.0


def rouge_l(reference: str, response: str) -> float:
    """ROUGE-L F1 (Lin 2004) over `words`, from 0 to 1; 0 where a text has no words."""
    return lcs_f1(words(reference), words(response))


def lcs_f1(reference: Sequence[str], response: Sequence[str]) -> float:
    """F1 of the longest common subsequence of two word lists: the ROUGE-L of texts split already."""
    length = LCSseq.similarity(reference, response)
    if not length:
        return 0.0
    precision, recall = length / len(response), length / len(reference)
    return 2 * precision * recall / (precision + recall)
