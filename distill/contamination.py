"""Passages that training shares with held-out texts: word n-grams by 64-bit codes, 12 bytes each.

13 words as in GPT-3 (Brown et al. 2020, appendix C). Two n-grams have the same code by chance about once in
2^58 pairs.
"""

import hashlib
from array import array
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from distill.text import words

FORM_TOPICS = 10  # GPT-3 too passed over n-grams that more than 10 documents share
MULTIPLIER = np.uint64(0x9E3779B97F4A7C15)  # odd: 2^64 over the golden ratio
PENDING = 1 << 20  # (n-gram, topic) pairs collected before they are counted


@lru_cache(1 << 16)
def _code(word: str) -> int:
    return int.from_bytes(hashlib.blake2b(word.encode(), digest_size=8).digest())


def codes(items: Sequence[str], n: int) -> np.ndarray:
    """The codes of the n-grams of some words in order, [n-grams] uint64; all words as one where there are fewer."""
    values = np.array([_code(word) for word in items], np.uint64)
    width = min(n, len(values))
    result = np.zeros(len(values) - width + 1 if width else 0, np.uint64)
    for place in range(width):
        result = result * MULTIPLIER + values[place : place + len(result)]
    return result


@dataclass(frozen=True)
class Forbidden:
    """The n-grams that training must not share, as sorted codes with the number of their first source."""

    n: int
    codes: np.ndarray  # [n-grams] uint64
    sources: np.ndarray  # [n-grams] uint32

    def first(self, texts: Iterable[str]) -> tuple[int, str] | None:
        """Source and words of the first n-gram of the texts that is forbidden, if any."""
        for text in texts:
            own = words(text)
            places, found = self.places(codes(own, self.n))
            if len(places):
                return int(self.sources[found[0]]), " ".join(own[places[0] : places[0] + self.n])
        return None

    def places(self, new: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Where in `new` the codes stand that are forbidden, and where among the forbidden each is."""
        if not len(self.codes):
            return np.empty(0, np.intp), np.empty(0, np.intp)
        found = np.searchsorted(self.codes, new).clip(max=len(self.codes) - 1)
        here = np.flatnonzero(self.codes[found] == new)
        return here, found[here]


def forbidden(held_out: Iterable[tuple[int, str]], asked: Iterable[tuple[int, str]], n: int) -> Forbidden:
    """The n-grams of the held-out (source, text) pairs that training must not share.

    A text of fewer than n words counts as a whole and is found only where a text is that and nothing else.
    An n-gram in the prompts of more than FORM_TOPICS topics, of the (topic, prompt) pairs `asked`, is the
    wording of a question form: topics share it by design and it gives nothing away.
    """
    found, sources = array("Q"), array("I")
    for source, text in held_out:
        new = codes(words(text), n)
        found.frombytes(new.tobytes())
        sources.extend([source] * len(new))
    unique, first = np.unique(np.frombuffer(found, np.uint64), return_index=True)
    every = Forbidden(n, unique, np.frombuffer(sources, np.uint32)[first])
    few = ~_wording(every, asked)
    return Forbidden(n, every.codes[few], every.sources[few])


def _wording(every: Forbidden, asked: Iterable[tuple[int, str]]) -> np.ndarray:
    """Whether each n-gram is in the prompts of more than FORM_TOPICS topics, [n-grams]."""
    wording = np.zeros(len(every.codes), bool)
    pairs = np.empty(0, np.uint64)  # place of the n-gram and topic in one number
    pending: list[np.ndarray] = []

    def count() -> None:
        nonlocal pairs
        pairs = np.unique(np.concatenate([pairs, *pending]))
        pending.clear()
        grams = (pairs >> np.uint64(32)).astype(np.intp)
        wording[np.bincount(grams, minlength=len(wording)) > FORM_TOPICS] = True
        pairs = pairs[~wording[grams]]

    waiting = 0
    for topic, text in asked:
        _, found = every.places(codes(words(text), every.n))
        found = found[~wording[found]]
        pending.append((found.astype(np.uint64) << np.uint64(32)) | np.uint64(topic))
        waiting += len(found)
        if waiting > PENDING:
            count()
            waiting = 0
    count()
    return wording
