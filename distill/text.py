"""Words and n-grams: what cleaning compares texts by."""

import re
import unicodedata
from collections.abc import Sequence

WORD = re.compile(r"\w+")


def normalise(text: str) -> str:
    """The text in one Unicode form, lower case, straight apostrophes, single spaces."""
    text = unicodedata.normalize("NFKC", text).casefold().replace("\u2019", "'")
    return " ".join(text.split())


def words(text: str) -> list[str]:
    """The words of the normalised text, without punctuation."""
    return WORD.findall(normalise(text))


def ngrams(items: Sequence[str], n: int) -> list[tuple[str, ...]]:
    """The n-grams in order; the whole as one where it is shorter than n."""
    if len(items) < n:
        return [tuple(items)] if items else []
    return [tuple(items[place : place + n]) for place in range(len(items) - n + 1)]


def repetition(text: str) -> float:
    """How degenerate a text is, from 0 (nothing said twice) to 1: the larger of two shares.

    The share of its word 3-grams that occurred before in it (duplicate n-grams as in Gopher, Rae et al.
    2021, section A1.1), and, for loops without spaces, the same share of the character 6-grams within words
    of at least 18 characters.
    """
    shares = [_repeated(ngrams(words(text), 3))]
    shares += [_repeated(ngrams(list(word), 6)) for word in normalise(text).split() if len(word) >= 18]
    return max(shares)


def _repeated(grams: Sequence[tuple[str, ...]]) -> float:
    return 1 - len(set(grams)) / len(grams) if grams else 0.0
