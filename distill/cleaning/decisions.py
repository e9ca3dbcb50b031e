"""Decisions on rows: keep, or drop with a reason and the row or text that it matches."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import groupby

import numpy as np
from tqdm import tqdm

from distill.cleaning import selection
from distill.cleaning.decontamination import NgramIndex
from distill.cleaning.dedup import DuplicateIndex, Sketcher
from distill.cleaning.filters import LanguageFilter, filter_row, has_class_label
from distill.cleaning.responses import Responses
from distill.cleaning.splits import SPLIT_PRIORITY
from distill.core.files import Row
from distill.core.text import words
from distill.params.clean import Clean

REASONS = (
    "failed",
    "filtered",
    "truncated",
    "empty",
    "refused",
    "too_short",
    "too_long",
    "repetitive",
    "language",
    *selection.REASONS,
    "duplicate",
    "near_duplicate",
    "contaminated",
)
KEPT = len(REASONS)  # the decision on a row that is not dropped


@dataclass(frozen=True)
class Corpus:
    """The rows, and all that decides on them."""

    rows: Responses
    splits: np.ndarray  # [rows] uint8, index in SPLIT_PRIORITY
    contamination: NgramIndex  # n-grams that training and validation rows must not contain
    clean: Clean
    policy: str  # generate.mixture.policy
    languages: LanguageFilter | None


@dataclass(frozen=True)
class Decisions:
    """The decision on each row, by its position."""

    reasons: np.ndarray  # [rows] uint8, index in REASONS, or KEPT
    matches: np.ndarray  # [rows] int32, position of the preferred or repeated row, or source of contamination; else -1
    num_words: np.ndarray  # [rows] uint32, of the response

    @property
    def kept(self) -> np.ndarray:
        """Whether each row is kept, [rows] bool."""
        return self.reasons == KEPT

    def drop(self, position: int, reason: str, match: int = -1) -> None:
        """Drop the row at a position."""
        self.reasons[position], self.matches[position] = REASONS.index(reason), match


class KeptRows:
    """The rows kept so far, with which each further row is compared. A rank is a row's number in `order`."""

    def __init__(self, corpus: Corpus, order: np.ndarray, index: DuplicateIndex) -> None:
        self._corpus, self._order, self._index = corpus, order, index
        self._sketcher = Sketcher(corpus.clean.minhash_threshold, corpus.clean.minhash_num_perm)

    def add(self, rank: int, row: Row) -> tuple[str, int] | None:
        """Add a row, or return the reason to drop it and its match."""
        text, labelled = compared_text(row), has_class_label(row)
        keys = self._sketcher.keys(text)
        equal = self._index.find_exact(text, keys)
        if equal is not None and not (labelled and self._row(equal)["prompt_id"] == row["prompt_id"]):
            return "duplicate", self._order[equal]
        # not for class labels: prompts that begin with the same examples are all similar
        if not labelled and (similar := self._index.find_near(text, keys)) is not None:
            return "near_duplicate", self._order[similar]
        if SPLIT_PRIORITY[self._corpus.splits[self._order[rank]]] != "test":
            shared = self._corpus.contamination.find_first(all_texts(row))
            if shared:
                return "contaminated", shared[0]
        self._index.add(rank, keys)
        return None

    def _row(self, rank: int) -> Row:
        return self._corpus.rows[self._order[rank]]


def all_texts(row: Row) -> list[str]:
    """The texts that must not be contaminated: messages and response."""
    return [*(turn["content"] for turn in row["messages"]), row["response"]]


def compared_text(row: Row) -> str:
    """The text by which a row repeats another: the response, or the prompt where the response is a class label."""
    return "\n".join(turn["content"] for turn in row["messages"]) if has_class_label(row) else row["response"]


def decide(corpus: Corpus) -> Decisions:
    """Decide on each row, split by split in the order of SPLIT_PRIORITY.

    - The filters drop rows for their own faults.
    - The policy of the mixture selects among the remaining responses to a prompt.
    - A selected row is compared with the kept rows alone. Of rows that repeat each other the test row stays, then the
      validation row, then the first. Rows with class labels repeat each other if different prompts have equal words.
    - Contamination drops training and validation rows, never test rows.
    """
    rows, count = corpus.rows, len(corpus.rows)
    decisions = Decisions(np.full(count, KEPT, np.uint8), np.full(count, -1, np.int32), np.zeros(count, np.uint32))
    order = np.argsort(corpus.splits, kind="stable").astype(np.uint32)
    with DuplicateIndex(corpus.clean.minhash_threshold, lambda rank: compared_text(rows[order[rank]])) as index:
        kept = KeptRows(corpus, order, index)
        for _, group in groupby(_filtered(corpus, order, decisions), key=lambda item: item[1]["prompt_id"]):
            responses = {row["id"]: (rank, row) for rank, row in group}
            candidates = [selection.candidate(row) for _, row in responses.values()]
            rejections = selection.reject(corpus.policy, candidates)
            for row_id, (rank, row) in responses.items():
                if row_id in rejections:
                    reason, preferred = rejections[row_id]
                    decisions.drop(order[rank], reason, order[responses[preferred][0]])
                elif drop := kept.add(rank, row):
                    decisions.drop(order[rank], *drop)
    return decisions


def _filtered(corpus: Corpus, order: np.ndarray, decisions: Decisions) -> Iterator[tuple[int, Row]]:
    """Rank and row of each row that passes the filters. The rows of a prompt follow one another."""
    for rank, position in enumerate(tqdm(order, desc="clean", unit="row")):
        row = corpus.rows[position]
        decisions.num_words[position] = len(words(row["response"]))
        if drop := filter_row(row, corpus.clean, corpus.languages):
            decisions.drop(position, drop[0])
        else:
            yield rank, row


def explain(corpus: Corpus, decisions: Decisions, position: int) -> Row:
    """A dropped row with `reason`, `detail` and `matching_text`.

    The matching text is the preferred or repeated text or the shared n-gram, else null.
    """
    rows, clean = corpus.rows, corpus.clean
    row, reason, match = rows[position], REASONS[decisions.reasons[position]], int(decisions.matches[position])
    text: str | None = None
    if reason == "contaminated":
        evaluations = [*clean.evaluation_texts, *clean.evaluation_tasks]
        _, text = corpus.contamination.find_first(all_texts(row)) or (0, "")
        source = rows[match]["prompt_id"] if match < len(rows) else evaluations[match - len(rows)]
        detail = f"{source}: {text}"
    elif match >= 0:
        detail = rows[match]["id"]
        text = compared_text(rows[match]) if reason == "duplicate" else rows[match]["response"]
    else:
        _, detail = filter_row(row, clean, corpus.languages) or ("", "")
    return {**row, "reason": reason, "detail": detail, "matching_text": text}
