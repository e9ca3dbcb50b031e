"""Near duplicates against the comparison of all pairs."""

import random
import subprocess
import sys
from pathlib import Path

import pytest

from distill.cleaning.dedup import Kept, Sketcher, bands
from distill.core import text

ROOT = Path(__file__).parents[2]


def test_bands_are_as_long_as_a_missed_pair_in_a_thousand_allows():
    assert bands(0.9, 128) == (16, 8)
    assert (1 - 0.9**8) ** 16 < 1e-3 < (1 - 0.9**9) ** 14
    assert bands(1.0, 128) == (2, 64)
    assert bands(0.01, 16) == (16, 1)


@pytest.mark.parametrize("threshold", [0.3, 0.6, 0.9, 1.0])
def test_similar_texts_are_those_of_the_exact_comparison_of_all_pairs(threshold):
    dice = random.Random(1)
    texts = []
    for _ in range(30):
        base = [f"w{dice.randrange(500)}" for _ in range(30)]
        for changes in (0, 0, 1, 2, 4, 8):
            copy = list(base)
            for _ in range(changes):
                copy[dice.randrange(30)] = f"w{dice.randrange(500)}"
            texts.append(" ".join(copy))
    shingles = [set(text.ngrams(one.split(), 3)) for one in texts]
    exact = [
        next((b for b in range(a) if text.jaccard(shingles[a], shingles[b]) >= threshold), None)
        for a in range(len(texts))
    ]
    sketcher = Sketcher(threshold, 128)
    found = []
    with Kept(threshold, texts.__getitem__) as kept:
        for number, one in enumerate(texts):
            keys = sketcher.keys(one)
            found.append(kept.similar(one, keys))
            kept.keep(number, keys)
    assert any(exact)
    assert found == exact


def test_equal_keys_of_unlike_texts_make_no_duplicates():
    texts = ["one two three", "four five six", "ONE two, three", "One  two three"]
    found = []
    with Kept(0.9, texts.__getitem__) as kept:
        for number, one in enumerate(texts):
            found.append((kept.same(one, [1, 2]), kept.similar(one, [1, 2])))
            if found[-1] == (None, None):
                kept.keep(number, [1, 2])
    assert found == [(None, None), (None, None), (None, 0), (0, 0)]


def test_a_key_of_one_band_is_none_of_another():
    keys = Sketcher(0.9, 128).keys("one two three")
    assert [key >> 32 for key in keys] == list(range(17))


def test_keys_are_on_the_disk_and_memory_stays():
    """A hundred thousand texts have 34 MB of keys."""
    script = (
        "import random\n"
        "from distill.cleaning.dedup import Kept\n"
        "def resident(): return int(open('/proc/self/statm').read().split()[1]) * 4096 / 1e6\n"
        "dice = random.Random(1)\n"
        "with Kept(0.9, str) as kept:\n"
        "    for number in range(100_000):\n"
        "        if number == 50_000: before = resident()\n"
        "        kept.keep(number, [place << 32 | dice.getrandbits(32) for place in range(17)])\n"
        "    print(resident() - before)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, cwd=ROOT)
    assert float(done.stdout) < 4, done.stdout
