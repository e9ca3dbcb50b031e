"""Exact and near-duplicate detection with MinHash LSH (Broder 1997).

Word 3-grams of a text are sketched and the sketch is split into bands. Texts that agree in a band are candidates; the
texts themselves decide. Keys of 4 bytes on the disk serve millions of texts.
"""

import zlib
from collections.abc import Callable
from functools import lru_cache
from typing import Self

from datasketch import MinHash

from distill.cleaning.scratch_db import temporary_database
from distill.core.text import WORD_NGRAM, Gram, jaccard, ngrams, normalise, words

MAX_MISS_PROBABILITY = 1e-3  # that LSH does not propose a pair exactly at the threshold
NUM_CACHED_TEXTS = 1024  # whose 3-grams stay in memory


def lsh_bands(threshold: float, num_perm: int) -> tuple[int, int]:
    """Number of bands, and rows of a band: the longest bands that stay below MAX_MISS_PROBABILITY.

    A pair of similarity t agrees in no band with probability (1 - t^rows)^bands. With too few permutations for that,
    bands have one row. `num_perm` must be at least 2.
    """
    rows = num_perm // 2
    while rows > 1 and (1 - threshold**rows) ** (num_perm // rows) >= MAX_MISS_PROBABILITY:
        rows -= 1
    return num_perm // rows, rows


def shingles(text: str) -> set[Gram]:
    """The word 3-grams of a text."""
    return set(ngrams(words(text), WORD_NGRAM))


class Sketcher:
    """Keys of texts, the same in every process."""

    def __init__(self, threshold: float, num_perm: int) -> None:
        self.bands, self.rows = lsh_bands(threshold, num_perm)
        self._minhash = MinHash(num_perm=num_perm, seed=1)

    def keys(self, text: str) -> list[int]:
        """Keys, [1 + bands]: of the normalised text, then of each band of its sketch.

        A key is a 32-bit hash after the number of its band, so that keys of different bands differ.
        """
        self._minhash.clear()
        self._minhash.update_batch([" ".join(gram).encode() for gram in shingles(text)])
        bands = self._minhash.hashvalues[: self.bands * self.rows].reshape(self.bands, self.rows)
        hashes = (zlib.crc32(normalise(text).encode()), *(zlib.crc32(band.tobytes()) for band in bands))
        return [number << 32 | value for number, value in enumerate(hashes)]


class DuplicateIndex:
    """The texts kept so far, by number, to find the first one that a new text repeats.

    Keys are on the disk, so that memory does not grow with texts. `read` returns the text of a number.
    """

    def __init__(self, threshold: float, read: Callable[[int], str]) -> None:
        self.threshold, self._read = threshold, read
        self._shingles = lru_cache(NUM_CACHED_TEXTS)(lambda number: shingles(read(number)))
        self._database = temporary_database()
        self._database.execute(
            "CREATE TABLE kept (key INTEGER, number INTEGER, PRIMARY KEY (key, number)) WITHOUT ROWID"
        )

    def find_exact(self, text: str, keys: list[int]) -> int | None:
        """The first text that equals this one once normalised, if any."""
        candidates = self._candidates(keys[:1])
        normalised = normalise(text) if candidates else ""
        return next((number for number in candidates if normalise(self._read(number)) == normalised), None)

    def find_near(self, text: str, keys: list[int]) -> int | None:
        """The first text whose Jaccard similarity of word 3-grams to this one reaches the threshold, if any."""
        candidates = self._candidates(keys[1:])
        grams = shingles(text) if candidates else set()
        return next((number for number in candidates if jaccard(grams, self._shingles(number)) >= self.threshold), None)

    def add(self, number: int, keys: list[int]) -> None:
        """Add the text of this number by its keys."""
        self._database.executemany("INSERT INTO kept VALUES (?, ?)", ((key, number) for key in keys))

    def _candidates(self, keys: list[int]) -> list[int]:
        """The texts that share one of the keys, in order."""
        marks = ",".join("?" * len(keys))
        query = f"SELECT DISTINCT number FROM kept WHERE key IN ({marks}) ORDER BY number"
        return [number for (number,) in self._database.execute(query, keys)]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._database.close()
