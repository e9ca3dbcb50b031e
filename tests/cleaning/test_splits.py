"""Splits by topic."""

import hashlib

import pytest
from raw_rows import CLEAN, SPLIT, TOPIC, clean_params, clean_rows, good_rows, raw_row

from distill.cleaning.splits import SPLITS, split_topics
from distill.core.errors import UserError


def test_the_split_follows_the_hash_of_seed_and_topic():
    topics = [f"topic {number}" for number in range(20)]
    split = split_topics(topics, clean_params(test_fraction=0.1, validation_fraction=0.15), 7)
    order = sorted(topics, key=lambda name: hashlib.sha256(f"7/{name}".encode()).hexdigest())
    assert [split[name] for name in order] == ["test"] * 2 + ["validation"] * 3 + ["train"] * 15
    assert split == split_topics(reversed(topics), clean_params(test_fraction=0.1, validation_fraction=0.15), 7)
    assert split != split_topics(topics, clean_params(test_fraction=0.1, validation_fraction=0.15), 8)


def test_a_fraction_is_at_least_one_topic():
    topics = ["a", "b", "c"]
    tiny = split_topics(topics, clean_params(test_fraction=0.01, validation_fraction=0.01), 0)
    assert sorted(tiny.values()) == ["test", "train", "validation"]


def test_splits_without_training_topics_are_refused():
    with pytest.raises(UserError, match="leave none to train on"):
        split_topics(["a", "b"], CLEAN, 0)


def test_dropped_rows_and_new_teachers_move_no_topic():
    rows = good_rows()
    worse = [{**row, "response": ""} if row["topic"] == TOPIC["test"] else row for row in rows]
    more = [*rows, *({**row, "id": f"{row['prompt_id']}@u", "teacher": "u", "response": row["id"]} for row in rows)]
    for changed in (rows, worse, more):
        _, outputs = clean_rows(changed)
        assert all(SPLIT[row["topic"]] == split for split in SPLITS for row in outputs[split])


def test_a_topic_in_another_case_or_spacing_is_the_same():
    rows = [*good_rows(), raw_row(f" {TOPIC['test'].upper()} ", "They live in large families.", "x")]
    metrics, outputs = clean_rows(rows)
    assert rows[-1] in outputs["test"]
    assert metrics["splits"]["test"]["topics"] == 1
