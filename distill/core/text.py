"""Words and their n-grams: how a text repeats itself, opens, or is like another."""

import re
import unicodedata
from collections.abc import Hashable, Sequence
from functools import lru_cache

APOSTROPHES = str.maketrans(dict.fromkeys("\u2018\u2019\u02bc", "'"))
CJK = r"\u3040-\u30ff\u3400-\u9fff"  # written without spaces: each character counts as a word
WORD = re.compile(rf"[{CJK}]|[^\W_{CJK}]+(?:'[^\W_]+)*")
WORD_NGRAM = 3
CHARACTER_NGRAM = 12
Gram = tuple[str, ...]


def normalise(text: str) -> str:
    """The text in one Unicode form (NFKC), case folded, with straight apostrophes and single spaces."""
    return " ".join(unicodedata.normalize("NFKC", text).casefold().translate(APOSTROPHES).split())


def words(text: str) -> list[str]:
    """The words of the normalised text, without punctuation: `I can't.` gives `i`, `can't`."""
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
