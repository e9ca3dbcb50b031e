"""Which of millions of texts repeat an earlier one: keys of 4 bytes propose, the texts themselves decide.

MinHash LSH (Broder 1997): a text's word 3-grams are sketched, the sketch is cut into bands, and texts that
agree in a band are compared. No two texts are called alike by the luck of a hash.
"""

import zlib
from collections import defaultdict
from collections.abc import Callable
from functools import lru_cache

import numpy as np
from datasketch import MinHash

from distill.text import WORD_NGRAM, Gram, jaccard, ngrams, normalise, words

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
        """32-bit keys, [1 + bands]: of the normalised text, then of each band of its sketch."""
        self._sketch.clear()
        self._sketch.update_batch([" ".join(gram).encode() for gram in shingles(text)])
        parts = self._sketch.hashvalues[: self.bands * self.rows].reshape(self.bands, self.rows)
        return [zlib.crc32(normalise(text).encode()), *(zlib.crc32(part.tobytes()) for part in parts)]


def shingles(text: str) -> set[Gram]:
    """The word 3-grams of a text."""
    return set(ngrams(words(text), WORD_NGRAM))


class Meetings:
    """For each text the groups that it is in: a group has the texts of one key of one column, two at least."""

    def __init__(self, keys: np.ndarray) -> None:
        """Takes keys [columns, texts]."""
        texts, groups, count = [], [], 0
        for column in keys:
            order = np.argsort(column, kind="stable").astype(np.uint32)
            begins = np.diff(column[order], prepend=column[order[:1]] + 1) != 0
            group = np.cumsum(begins, dtype=np.uint32) - 1
            shared = np.bincount(group)[group] > 1
            texts.append(order[shared])
            groups.append(group[shared] + np.uint32(count))
            count += len(column)
        joined = np.concatenate(texts)
        by_text = np.argsort(joined, kind="stable")
        self._groups = np.concatenate(groups)[by_text]
        self._ends = np.cumsum(np.bincount(joined, minlength=keys.shape[1]))

    def of(self, text: int) -> list[int]:
        """The groups of a text."""
        return self._groups[self._ends[text - 1] if text else 0 : self._ends[text]].tolist()


class Kept:
    """The texts kept so far, by number, to find the first one that a new text repeats.

    Texts are numbered in the order in which they are tried, and `read` gives one by its number.
    """

    def __init__(self, keys: np.ndarray, threshold: float, read: Callable[[int], str]) -> None:
        """Takes the keys of all texts, [1 + bands, texts]."""
        self.threshold, self._read = threshold, read
        self._equal, self._alike = Meetings(keys[:1]), Meetings(keys[1:])
        self._of_equal: dict[int, list[int]] = defaultdict(list)
        self._of_alike: dict[int, list[int]] = defaultdict(list)
        self._shingles = lru_cache(REMEMBERED)(lambda number: shingles(read(number)))

    def same(self, number: int) -> int | None:
        """The first kept text that is equal to this one once normalised, if any."""
        others = [other for group in self._equal.of(number) for other in self._of_equal[group]]
        own = normalise(self._read(number)) if others else ""
        return next((other for other in others if normalise(self._read(other)) == own), None)

    def similar(self, number: int) -> int | None:
        """The first kept text whose Jaccard similarity of word 3-grams to this one reaches the threshold, if any."""
        for other in sorted({other for group in self._alike.of(number) for other in self._of_alike[group]}):
            if jaccard(self._shingles(number), self._shingles(other)) >= self.threshold:
                return other
        return None

    def keep(self, number: int) -> None:
        """Keeps a text."""
        for group in self._equal.of(number):
            self._of_equal[group].append(number)
        for group in self._alike.of(number):
            self._of_alike[group].append(number)
