"""Words of any script, their n-grams, and similarities of texts."""

import unicodedata
from collections.abc import Hashable, Iterator, Sequence
from functools import lru_cache

import regex
from rapidfuzz.distance import LCSseq

APOSTROPHES = str.maketrans(dict.fromkeys("\u2018\u2019\u02bc", "'"))
# Neither letters nor spaces: direction marks, soft hyphens, variation selectors. Joiners spell words in many scripts,
# and a zero-width space parts them.
INVISIBLE = regex.compile(r"[\p{Default_Ignorable_Code_Point}--[\p{Join_Control}\u200b]]", regex.VERSION1)
# Han, kana, Yi, Thai, Lao, Khmer, Burmese and others are written without spaces: a line may break between any of their
# letters (Unicode annex 14), and each letter counts as a word.
UNSPACED = r"[[\p{Line_Break=ID}\p{Line_Break=CJ}\p{Line_Break=NS}\p{Line_Break=SA}]&&\p{L}]"
LETTER = r"[\p{L}\p{N}]"
MARK = r"[\p{Mn}\p{Mc}\p{Join_Control}]"  # accents, vowel signs, joiners: part of their word
WORD = regex.compile(
    rf"{UNSPACED}{MARK}*|[{LETTER}--{UNSPACED}][[{LETTER}{MARK}]--{UNSPACED}]*(?:['\u2018\u2019]{LETTER}[{LETTER}{MARK}]*)*",
    regex.VERSION1,
)
WORD_NGRAM = 3
CHARACTER_NGRAM = 12
Gram = tuple[str, ...]


def normalise(text: str) -> str:
    """The text in one Unicode form (NFKC), case folded, with straight apostrophes and single spaces.

    Characters that nobody sees, such as direction marks, are left out.
    """
    if not text.isascii():
        folded = unicodedata.normalize("NFKC", INVISIBLE.sub("", text)).casefold()
        text = unicodedata.normalize("NFKC", folded).translate(APOSTROPHES)  # case folding decomposes some letters
    return " ".join(text.casefold().split())


def is_text(value: str) -> bool:
    """Whether a text can be written as UTF-8: half an emoji (a lone surrogate) cannot."""
    return not any("\ud800" <= character <= "\udfff" for character in value)


def words(text: str) -> list[str]:
    """The words of the normalised text, without punctuation: `I can't.` gives `i`, `can't`.

    A combining mark belongs to its letter.
    """
    return list(_words(text))


@lru_cache(8)  # cleaning needs the words of one text many times in a row
def _words(text: str) -> tuple[str, ...]:
    return tuple(WORD.findall(normalise(text)))


def split_by_words(text: str, max_words: int) -> Iterator[str]:
    """The text in parts of at most `max_words` words, with single spaces.

    A part ends at a space; inside a longer text without spaces it ends before any word.
    """
    part: list[str] = []
    count = 0
    for token in text.split():
        starts = [match.start() for match in WORD.finditer(token)]
        for first in range(0, max(1, len(starts)), max_words):
            length = min(max_words, len(starts) - first)
            if part and count + length > max_words:
                yield " ".join(part)
                part, count = [], 0
            begin, end = starts[first] if first else 0, first + max_words
            part.append(token[begin : starts[end] if end < len(starts) else len(token)])
            count += length
    if part:
        yield " ".join(part)


def ngrams(items: Sequence[str], n: int) -> list[Gram]:
    """The n-grams in order. Fewer than n items are one n-gram, no items are none."""
    if len(items) < n:
        return [tuple(items)] if items else []
    return [tuple(items[start : start + n]) for start in range(len(items) - n + 1)]


def duplicate_fraction(grams: Sequence[Hashable]) -> float:
    """The fraction of n-grams that occurred before in the same sequence: 1 - distinct / all; 0 for no n-grams."""
    return 1 - len(set(grams)) / len(grams) if grams else 0.0


def repetition(text: str) -> float:
    """The larger of two fractions of duplicate n-grams, from 0 (no repetition) towards 1 (a loop).

    Word 3-grams show sentences that loop, character 12-grams show loops without spaces. The duplicate n-grams of
    Gopher (Rae et al. 2021, section A1.1).
    """
    plain = normalise(text)
    characters = [plain[start : start + CHARACTER_NGRAM] for start in range(len(plain) - CHARACTER_NGRAM + 1)]
    return max(duplicate_fraction(ngrams(words(text), WORD_NGRAM)), duplicate_fraction(characters))


def opens_with(text: str, opening: str) -> bool:
    """Whether a text begins with the words of `opening`: "As an AI" does not open "As an airline".

    Case, punctuation and the kind of apostrophe do not matter. An opening without words opens no text.
    """
    prefix = words(opening)
    return bool(prefix) and words(text)[: len(prefix)] == prefix


def jaccard(a: set[Gram], b: set[Gram]) -> float:
    """|A and B| / |A or B|; 1 for two empty sets."""
    return len(a & b) / len(a | b) if a | b else 1.0


def rouge_l(reference: str, response: str) -> float:
    """ROUGE-L F1 (Lin 2004) over `words`, from 0 to 1; 0 if a text has no words."""
    return lcs_f1(words(reference), words(response))


def lcs_f1(reference: Sequence[str], response: Sequence[str]) -> float:
    """F1 of the longest common subsequence of two word lists: the ROUGE-L of texts split already."""
    length = LCSseq.similarity(reference, response)
    if not length:
        return 0.0
    precision, recall = length / len(response), length / len(reference)
    return 2 * precision * recall / (precision + recall)
