"""Passages that training shares with held-out texts: word n-grams by 64-bit codes, 12 bytes each.

13 words as in GPT-3 (Brown et al. 2020, appendix C). Two n-grams have the same code by chance about once in
2^58 pairs.
"""

import hashlib
import sqlite3
from collections.abc import Iterable, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from distill.cleaning.scratch_db import database
from distill.core.text import words

FORM_TOPICS = 10  # GPT-3 too passed over n-grams that more than 10 documents share
MULTIPLIER = np.uint64(0x9E3779B97F4A7C15)  # odd: 2^64 over the golden ratio


@lru_cache(1 << 16)
def _code(word: str) -> int:
    return int.from_bytes(hashlib.blake2b(word.encode(), digest_size=8).digest())


def codes(items: Sequence[str], n: int) -> np.ndarray:
    """The codes of the n-grams of some words in order, [n-grams] int64; all words as one where there are fewer."""
    values = np.array([_code(word) for word in items], np.uint64)
    width = min(n, len(values))
    result = np.zeros(len(values) - width + 1 if width else 0, np.uint64)
    for place in range(width):
        result = result * MULTIPLIER + values[place : place + len(result)]
    return result.view(np.int64)


@dataclass(frozen=True)
class Forbidden:
    """The n-grams that training must not share, as sorted codes with the number of their first source."""

    n: int
    codes: np.ndarray  # [n-grams] int64
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
    with closing(database()) as base:
        base.execute("CREATE TABLE grams (code INTEGER PRIMARY KEY, source INTEGER)")
        found = ((code, source) for source, text in held_out for code in codes(words(text), n).tolist())
        base.executemany("INSERT OR IGNORE INTO grams VALUES (?, ?)", found)  # the first source stays
        every = _sorted(base, n)
        base.execute("CREATE TABLE asked (code INTEGER, topic INTEGER, PRIMARY KEY (code, topic)) WITHOUT ROWID")
        shared = (
            (int(every.codes[at]), topic) for topic, text in asked for at in every.places(codes(words(text), n))[1]
        )
        base.executemany("INSERT OR IGNORE INTO asked VALUES (?, ?)", shared)
        wording = f"SELECT code FROM asked GROUP BY code HAVING count(*) > {FORM_TOPICS}"
        base.execute(f"DELETE FROM grams WHERE code IN ({wording})")
        return _sorted(base, n)


def _sorted(base: sqlite3.Connection, n: int) -> Forbidden:
    """The n-grams of the table `grams`."""
    ((count,),) = base.execute("SELECT count(*) FROM grams")
    columns = {
        name: np.fromiter((value for (value,) in base.execute(f"SELECT {name} FROM grams ORDER BY code")), kind, count)
        for name, kind in (("code", np.int64), ("source", np.uint32))
    }
    return Forbidden(n, columns["code"], columns["source"])
