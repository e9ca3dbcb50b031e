"""Decontamination: word n-grams that training shares with held-out texts.

13 words as in GPT-3 (Brown et al. 2020, appendix C). An n-gram is a 64-bit code and takes 12 bytes. Two n-grams have
the same code by chance about once in 2^58 pairs.
"""

import hashlib
import sqlite3
from collections.abc import Iterable, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from distill.cleaning.scratch_db import temporary_database
from distill.core.text import words

MAX_TOPICS = 10  # GPT-3 too ignored n-grams that more than 10 documents share
MULTIPLIER = np.uint64(0x9E3779B97F4A7C15)  # odd: 2^64 over the golden ratio


@lru_cache(1 << 16)
def _word_code(word: str) -> int:
    return int.from_bytes(hashlib.blake2b(word.encode(), digest_size=8).digest())


def ngram_codes(items: Sequence[str], n: int) -> np.ndarray:
    """The codes of the n-grams of a list of words in order, [n-grams] int64. Fewer than n words are one n-gram."""
    values = np.array([_word_code(word) for word in items], np.uint64)
    width = min(n, len(values))
    result = np.zeros(len(values) - width + 1 if width else 0, np.uint64)
    for offset in range(width):
        result = result * MULTIPLIER + values[offset : offset + len(result)]
    return result.view(np.int64)


@dataclass(frozen=True)
class NgramIndex:
    """The n-grams that training must not share, as sorted codes with the number of their first source."""

    n: int
    codes: np.ndarray  # [n-grams] int64
    sources: np.ndarray  # [n-grams] uint32

    def find_first(self, texts: Iterable[str]) -> tuple[int, str] | None:
        """Source and words of the first n-gram of the texts that is in the index, if any."""
        for text in texts:
            text_words = words(text)
            positions, entries = self.lookup(ngram_codes(text_words, self.n))
            if len(positions):
                return int(self.sources[entries[0]]), " ".join(text_words[positions[0] : positions[0] + self.n])
        return None

    def lookup(self, codes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Positions of the given codes that are in the index, and their entries in the index, [matches] each."""
        if not len(self.codes):
            return np.empty(0, np.intp), np.empty(0, np.intp)
        entries = np.searchsorted(self.codes, codes).clip(max=len(self.codes) - 1)
        positions = np.flatnonzero(self.codes[entries] == codes)
        return positions, entries[positions]


def build_index(held_out: Iterable[tuple[int, str]], prompts: Iterable[tuple[int, str]], n: int) -> NgramIndex:
    """Index the n-grams of the held-out (source, text) pairs.

    A text of fewer than n words is one n-gram: it matches only texts of exactly these words. An n-gram in prompts of
    more than MAX_TOPICS topics, of the (topic, text) pairs `prompts`, is a form of question. Topics share it by
    design, so the index leaves it out.
    """
    with closing(temporary_database()) as database:
        database.execute("CREATE TABLE grams (code INTEGER PRIMARY KEY, source INTEGER)")
        grams = ((code, source) for source, text in held_out for code in ngram_codes(words(text), n).tolist())
        database.executemany("INSERT OR IGNORE INTO grams VALUES (?, ?)", grams)  # the first source stays
        index = _sorted_index(database, n)
        database.execute("CREATE TABLE uses (code INTEGER, topic INTEGER, PRIMARY KEY (code, topic)) WITHOUT ROWID")
        uses = (
            (int(index.codes[entry]), topic)
            for topic, text in prompts
            for entry in index.lookup(ngram_codes(words(text), n))[1]
        )
        database.executemany("INSERT OR IGNORE INTO uses VALUES (?, ?)", uses)
        forms = f"SELECT code FROM uses GROUP BY code HAVING count(*) > {MAX_TOPICS}"
        database.execute(f"DELETE FROM grams WHERE code IN ({forms})")
        return _sorted_index(database, n)


def _sorted_index(database: sqlite3.Connection, n: int) -> NgramIndex:
    """The n-grams of the table `grams`."""
    ((count,),) = database.execute("SELECT count(*) FROM grams")
    columns = {
        name: np.fromiter(
            (value for (value,) in database.execute(f"SELECT {name} FROM grams ORDER BY code")), dtype, count
        )
        for name, dtype in (("code", np.int64), ("source", np.uint32))
    }
    return NgramIndex(n, columns["code"], columns["source"])
