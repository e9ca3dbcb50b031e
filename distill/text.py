"""Words and their n-grams: how a text repeats itself, repeats another, or shares a passage with a held-out one."""

import re
import unicodedata
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass

from datasketch import MinHash, MinHashLSH

APOSTROPHES = str.maketrans(dict.fromkeys("\u2018\u2019\u02bc", "'"))
CJK = r"\u3040-\u30ff\u3400-\u9fff"  # written without spaces: each character counts as a word
WORD = re.compile(rf"[{CJK}]|[^\W_{CJK}]+(?:'[^\W_]+)*")
WORD_NGRAM = 3
CHARACTER_NGRAM = 12
MISSED = 1e-3  # chance that LSH does not propose a pair right at the threshold
FORM_TOPICS = 10  # GPT-3 too passed over n-grams that more than 10 documents share (Brown et al. 2020, appendix C)

Gram = tuple[str, ...]


def normalise(text: str) -> str:
    """The text in one Unicode form (NFKC), case folded, with straight apostrophes and single spaces."""
    return " ".join(unicodedata.normalize("NFKC", text).casefold().translate(APOSTROPHES).split())


def words(text: str) -> list[str]:
    """The words of the normalised text, without punctuation: `I can't.` gives `i`, `can't`."""
    return WORD.findall(normalise(text))


def ngrams(items: Sequence[str], n: int) -> list[Gram]:
    """The n-grams in order; all items as one where there are fewer than n, nothing where there are none."""
    if len(items) < n:
        return [tuple(items)] if items else []
    return [tuple(items[place : place + n]) for place in range(len(items) - n + 1)]


def duplicate_share(grams: Sequence[Hashable]) -> float:
    """The share of the grams that stood before in the same sequence: 1 - distinct / all, 0 for none."""
    return 1 - len(set(grams)) / len(grams) if grams else 0.0


def repetition(text: str) -> float:
    """How much of a text repeats itself, from 0 (nothing said twice) towards 1 (a loop).

    The larger of two shares of n-grams that stood before in it (the duplicate n-grams of Gopher, Rae et al.
    2021, section A1.1): of its word 3-grams, for sentences that loop, and of its character 12-grams, for
    loops without spaces.
    """
    plain = normalise(text)
    characters = [plain[place : place + CHARACTER_NGRAM] for place in range(len(plain) - CHARACTER_NGRAM + 1)]
    return max(duplicate_share(ngrams(words(text), WORD_NGRAM)), duplicate_share(characters))


def opens_with(text: str, opening: str) -> bool:
    """Whether the first words of a text are those of `opening`: "As an AI" opens no "As an airline".

    Case, quotes, punctuation and the kind of apostrophe do not matter. An opening without words opens nothing.
    """
    first = words(opening)
    return bool(first) and words(text)[: len(first)] == first


def jaccard(one: set[Gram], other: set[Gram]) -> float:
    """|A and B| / |A or B|; 1 for two empty sets."""
    return len(one & other) / len(one | other) if one | other else 1.0


@dataclass(frozen=True)
class Fingerprint:
    """What a text is compared by: its normal form, its word 3-grams and their MinHash."""

    text: str
    shingles: set[Gram]
    sketch: MinHash


class Kept:
    """Texts under their ids, to find the first one that a new text repeats.

    MinHash LSH (Broder 1997) proposes and the exact Jaccard similarity of the word 3-grams decides: the luck
    of the hashes calls no two texts alike, and seldom misses a pair (see `bands`).
    """

    def __init__(self, threshold: float, permutations: int) -> None:
        self.threshold, self.permutations = threshold, permutations
        self.index = MinHashLSH(num_perm=permutations, params=bands(threshold, permutations))
        self.ids: list[str] = []
        self.shingles: list[set[Gram]] = []
        self.texts: dict[str, str] = {}

    def fingerprint(self, text: str) -> Fingerprint:
        """The fingerprint of a text; the same in every process."""
        shingles = set(ngrams(words(text), WORD_NGRAM))
        sketch = MinHash(num_perm=self.permutations, seed=1)
        sketch.update_batch([" ".join(gram).encode() for gram in shingles])
        return Fingerprint(normalise(text), shingles, sketch)

    def same(self, new: Fingerprint) -> str | None:
        """The id of the text that is equal to the new one once normalised, if any."""
        return self.texts.get(new.text)

    def similar(self, new: Fingerprint) -> str | None:
        """The first id whose text has a Jaccard similarity of at least the threshold to the new one, if any."""
        for place in sorted(self.index.query(new.sketch)):
            if jaccard(new.shingles, self.shingles[place]) >= self.threshold:
                return self.ids[place]
        return None

    def add(self, text_id: str, new: Fingerprint) -> None:
        """Keeps a text under its id."""
        self.index.insert(len(self.ids), new.sketch)
        self.ids.append(text_id)
        self.shingles.append(new.shingles)
        self.texts.setdefault(new.text, text_id)


def bands(threshold: float, permutations: int) -> tuple[int, int]:
    """Bands and rows a band for LSH: the longest bands that miss a pair at the threshold with a chance below MISSED.

    A pair of similarity t agrees in no band with probability (1 - t^rows)^bands. Where there are too few
    permutations for that, bands have one row. At least two permutations are needed.
    """
    rows = permutations // 2
    while rows > 1 and (1 - threshold**rows) ** (permutations // rows) >= MISSED:
        rows -= 1
    return permutations // rows, rows


def forbidden_ngrams(held_out: Iterable[tuple[str, str]], asked: Iterable[tuple[str, str]], n: int) -> dict[Gram, str]:
    """The n-grams of the held-out (source, text) pairs that training must not see, with their first source.

    A text of fewer than n words counts as a whole and is found only where a text is that and nothing else.
    An n-gram in the prompts of more than FORM_TOPICS topics, of the (topic, prompt) pairs `asked`, is the
    wording of a question form: topics share it by design and it gives nothing away.
    """
    sources: dict[Gram, str] = {}
    for source, text in held_out:
        for gram in ngrams(words(text), n):
            sources.setdefault(gram, source)
    topics: dict[Gram, set[str]] = {}
    for topic, text in set(asked):
        for gram in ngrams(words(text), n):
            if gram in sources:
                topics.setdefault(gram, set()).add(topic)
    return {gram: source for gram, source in sources.items() if len(topics.get(gram, ())) <= FORM_TOPICS}


def shared_ngram(texts: Iterable[str], forbidden: dict[Gram, str], n: int) -> Gram | None:
    """The first n-gram of the texts that is forbidden, if any."""
    grams = (gram for text in texts for gram in ngrams(words(text), n))
    return next((gram for gram in grams if gram in forbidden), None)
