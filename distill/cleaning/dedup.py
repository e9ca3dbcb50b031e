"""Which of millions of texts repeat an earlier one: keys of 4 bytes propose, the texts themselves decide.

MinHash LSH (Broder 1997): a text's word 3-grams are sketched, the sketch is cut into bands, and texts that
agree in a band are compared. No two texts are called alike by the luck of a hash.
"""

import zlib
from collections.abc import Callable
from functools import lru_cache
from typing import Self

from datasketch import MinHash

from distill.cleaning.scratch_db import database
from distill.core.text import WORD_NGRAM, Gram, jaccard, ngrams, normalise, words

MISSED = 1e-3  # chance that LSH does not propose a pair right at the threshold
REMEMBERED = 1024  # texts whose 3-grams are kept to compare the next one with


def bands(threshold: float, permutations: int) -> tuple[int, int]:
    """Bands and rows a band for LSH: the longest bands that miss a pair at the threshold with a chance below MISSED.

    A pair of similarity t agrees in no band with probability (1 - t^rows)^bands. Where there are too few
    permutations for that, bands have one row. At least two permutations are needed.
    """
    rows = permutations // 2
    while rows > 1 and (1 - threshold**rows) ** (permutations // rows) >= MISSED:
        rows -= 1
    return permutations // rows, rows


class Sketcher:
    """Makes the keys of a text, the same in every process."""

    def __init__(self, threshold: float, permutations: int) -> None:
        self.bands, self.rows = bands(threshold, permutations)
        self._sketch = MinHash(num_perm=permutations, seed=1)

    def keys(self, text: str) -> list[int]:
        """Keys, [1 + bands]: of the normalised text, then of each band of its sketch.

        A key is a 32-bit hash with the number of its place before it, so that keys of different bands differ.
        """
        self._sketch.clear()
        self._sketch.update_batch([" ".join(gram).encode() for gram in shingles(text)])
        parts = self._sketch.hashvalues[: self.bands * self.rows].reshape(self.bands, self.rows)
        hashes = (zlib.crc32(normalise(text).encode()), *(zlib.crc32(part.tobytes()) for part in parts))
        return [place << 32 | value for place, value in enumerate(hashes)]


def shingles(text: str) -> set[Gram]:
    """The word 3-grams of a text."""
    return set(ngrams(words(text), WORD_NGRAM))


class Kept:
    """The texts kept so far, by number, to find the first one that a new text repeats.

    Keys are in a database on the disk, so that memory does not grow with texts; `read` gives a text by its
    number.
    """

    def __init__(self, threshold: float, read: Callable[[int], str]) -> None:
        self.threshold, self._read = threshold, read
        self._shingles = lru_cache(REMEMBERED)(lambda number: shingles(read(number)))
        self._keys = database()
        self._keys.execute("CREATE TABLE kept (key INTEGER, number INTEGER, PRIMARY KEY (key, number)) WITHOUT ROWID")

    def same(self, text: str, keys: list[int]) -> int | None:
        """The first kept text that is equal to this one once normalised, if any."""
        others = self._sharing(keys[:1])
        own = normalise(text) if others else ""
        return next((other for other in others if normalise(self._read(other)) == own), None)

    def similar(self, text: str, keys: list[int]) -> int | None:
        """The first kept text whose Jaccard similarity of word 3-grams to this one reaches the threshold, if any."""
        others = self._sharing(keys[1:])
        own = shingles(text) if others else set()
        return next((other for other in others if jaccard(own, self._shingles(other)) >= self.threshold), None)

    def keep(self, number: int, keys: list[int]) -> None:
        """Keeps a text under its number."""
        self._keys.executemany("INSERT INTO kept VALUES (?, ?)", ((key, number) for key in keys))

    def _sharing(self, keys: list[int]) -> list[int]:
        """The kept texts that share one of the keys, in order."""
        marks = ",".join("?" * len(keys))
        found = self._keys.execute(f"SELECT DISTINCT number FROM kept WHERE key IN ({marks}) ORDER BY number", keys)
        return [number for (number,) in found]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._keys.close()
