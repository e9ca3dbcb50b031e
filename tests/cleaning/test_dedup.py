"""Near-duplicates compared with those of all pairs."""

import random
import subprocess
import sys
from pathlib import Path

import pytest

from distill.cleaning.dedup import DuplicateIndex, Sketcher, lsh_bands
from distill.core import text

ROOT = Path(__file__).parents[2]


def test_bands_are_as_long_as_the_miss_probability_allows():
    assert lsh_bands(0.9, 128) == (16, 8)
    assert (1 - 0.9**8) ** 16 < 1e-3 < (1 - 0.9**9) ** 14
    assert lsh_bands(1.0, 128) == (2, 64)
    assert lsh_bands(0.01, 16) == (16, 1)


@pytest.mark.parametrize("threshold", [0.3, 0.6, 0.9, 1.0])
def test_near_duplicates_equal_those_of_all_pairs(threshold):
    dice = random.Random(1)
    texts = []
    for _ in range(30):
        base = [f"w{dice.randrange(500)}" for _ in range(30)]
        for changes in (0, 0, 1, 2, 4, 8):
            copy = list(base)
            for _ in range(changes):
                copy[dice.randrange(30)] = f"w{dice.randrange(500)}"
            texts.append(" ".join(copy))
    shingles = [set(text.ngrams(item.split(), 3)) for item in texts]
    exact = [
        next((b for b in range(a) if text.jaccard(shingles[a], shingles[b]) >= threshold), None)
        for a in range(len(texts))
    ]
    sketcher = Sketcher(threshold, 128)
    matches = []
    with DuplicateIndex(threshold, texts.__getitem__) as index:
        for number, new in enumerate(texts):
            keys = sketcher.keys(new)
            matches.append(index.find_near(new, keys))
            index.add(number, keys)
    assert any(exact)
    assert matches == exact


def test_equal_keys_of_different_texts_make_no_duplicates():
    texts = ["one two three", "four five six", "ONE two, three", "One  two three"]
    matches = []
    with DuplicateIndex(0.9, texts.__getitem__) as index:
        for number, new in enumerate(texts):
            matches.append((index.find_exact(new, [1, 2]), index.find_near(new, [1, 2])))
            if matches[-1] == (None, None):
                index.add(number, [1, 2])
    assert matches == [(None, None), (None, None), (None, 0), (0, 0)]


def test_bands_have_different_keys():
    keys = Sketcher(0.9, 128).keys("one two three")
    assert [key >> 32 for key in keys] == list(range(17))


def test_memory_does_not_grow_with_texts():
    """A hundred thousand texts have 34 MB of keys."""
    script = (
        "import random\n"
        "from distill.cleaning.dedup import DuplicateIndex\n"
        "def resident(): return int(open('/proc/self/statm').read().split()[1]) * 4096 / 1e6\n"
        "dice = random.Random(1)\n"
        "with DuplicateIndex(0.9, str) as index:\n"
        "    for number in range(100_000):\n"
        "        if number == 50_000: before = resident()\n"
        "        index.add(number, [band << 32 | dice.getrandbits(32) for band in range(17)])\n"
        "    print(resident() - before)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, cwd=ROOT)
    assert float(done.stdout) < 4, done.stdout
