"""Counts of cleaning: every row is kept or dropped."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from raw_rows import CLEAN, LETTERS, SEED, SPLIT, TOPIC, clean_rows, good_rows, raw_row, read_responses

from distill.cleaning.decisions import KEPT, REASONS, Corpus, Decisions
from distill.cleaning.pipeline import contamination_index, require_rows, summary
from distill.cleaning.splits import SPLITS, assign_splits
from distill.core import text
from distill.core.errors import UserError


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.sampled_from(sorted(SPLIT)),
            st.one_of(st.sampled_from([" ".join(LETTERS), "They live in large families.", "no", ""]), st.text()),
            st.sampled_from(["stop", "length", "error", "content_filter", "other"]),
        )
    )
)
def test_every_row_is_kept_or_dropped_and_never_both(drawn):
    rows = good_rows() + [
        raw_row(topic, response, f"q{number}", finish_reason=finish)
        for number, (topic, response, finish) in enumerate(drawn)
    ]
    metrics, outputs = clean_rows(rows)
    assert metrics["requested"] == len(rows) == metrics["kept"] + metrics["dropped"] == sum(map(len, outputs.values()))
    assert sum(metrics["reasons"].values()) == metrics["dropped"]
    assert sorted(row["id"] for output in outputs.values() for row in output) == sorted(row["id"] for row in rows)
    kept = [text.normalise(row["response"]) for split in SPLITS for row in outputs[split]]
    assert len(kept) == len(set(kept))


def test_a_lost_row_is_noticed():
    lost = Decisions(np.array([KEPT] * 3 + [KEPT + 1]), np.zeros(4), np.zeros(4))
    with read_responses(good_rows()) as rows:
        splits = assign_splits(rows, CLEAN, SEED)
        corpus = Corpus(rows, splits, contamination_index(rows, splits, CLEAN), CLEAN, "all", None)
        with pytest.raises(AssertionError, match=r"4 rows requested, but .*3, 'dropped': 0"):
            summary(corpus, lost)


def test_the_summary_counts_every_reason_and_split():
    rows = [*good_rows(), raw_row(TOPIC["train"], "", "x")]
    metrics, _ = clean_rows(rows)
    assert metrics["reasons"] == dict.fromkeys(REASONS, 0) | {"empty": 1}
    assert metrics["splits"] == {
        "train": {"rows": 2, "topics": 2, "words": 12},
        "validation": {"rows": 1, "topics": 1, "words": 6},
        "test": {"rows": 1, "topics": 1, "words": 6},
    }


@pytest.mark.parametrize("split", ["train", "validation", "test"])
def test_a_split_without_rows_is_refused_with_the_reasons(split):
    rows = [{**row, "response": ""} if SPLIT[row["topic"]] == split else row for row in good_rows()]
    metrics, _ = clean_rows(rows)
    with pytest.raises(UserError, match=rf"no row in {split}; of 4 rows were dropped: empty \d"):
        require_rows(metrics)
