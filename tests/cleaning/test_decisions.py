"""Decisions on rows that repeat other rows, or that a policy or held-out texts exclude."""

import re
from pathlib import Path

import pytest
from raw_rows import LETTERS, SPLIT, TOPIC, clean_params, clean_rows, drop_reasons, good_rows, prompted, raw_row

from distill.cleaning import selection
from distill.cleaning.decisions import REASONS

ROOT = Path(__file__).parents[2]


def test_the_first_of_equal_responses_in_a_split_stays():
    rows = [
        *good_rows(),
        raw_row(TOPIC["train"], "They live in large families.", "home"),
        raw_row(TOPIC["train"], "they  live in large FAMILIES.", "life"),
    ]
    assert drop_reasons(rows) == {rows[-1]["id"]: ("duplicate", rows[-2]["id"])}


def test_near_duplicates_begin_at_the_threshold():
    base = LETTERS[:12]
    rows = [
        *good_rows(),
        raw_row(TOPIC["train"], " ".join(base), "a"),
        raw_row(TOPIC["train"], " ".join([*base[:11], "omega"]), "b"),
    ]
    similarity = 9 / 11
    assert drop_reasons(rows, clean_params(minhash_threshold=similarity)) == {
        rows[-1]["id"]: ("near_duplicate", rows[-2]["id"])
    }
    assert drop_reasons(rows, clean_params(minhash_threshold=similarity + 0.01)) == {}


@pytest.mark.parametrize(("holder", "loser"), [("test", "train"), ("test", "validation"), ("validation", "train")])
def test_a_response_in_two_splits_stays_by_split_priority(holder, loser):
    rows = [
        *good_rows(),
        raw_row(TOPIC[loser], "They live in large families.", "a"),
        raw_row(TOPIC[holder], "They live in large families!", "z"),
    ]
    assert drop_reasons(rows) == {rows[-2]["id"]: ("near_duplicate", rows[-1]["id"])}


def test_a_dropped_row_makes_no_duplicates():
    held_out = " ".join(LETTERS)
    rows = [
        *good_rows(),
        raw_row(TOPIC["test"], "Greek letters are old.", "a", **prompted(held_out)),
        raw_row(TOPIC["train"], "They live in large families.", "b", **prompted(held_out)),
        raw_row(TOPIC["train"], "They live in large families.", "c"),
    ]
    assert list(drop_reasons(rows)) == [rows[-2]["id"]]


@pytest.mark.parametrize("split", ["train", "validation", "test"])
@pytest.mark.parametrize("field", ["prompt", "response"])
def test_only_test_rows_share_13_words_with_a_held_out_prompt(split, field):
    held_out = "Please " + " ".join(LETTERS[:13])
    leak = "So: " + ", ".join(LETTERS[:13]).upper() + "!"
    row = raw_row(TOPIC[split], "They live in large families.", "leak", **prompted(leak))
    if field == "response":
        row = raw_row(TOPIC[split], leak, "leak")
    rows = [*good_rows(), raw_row(TOPIC["test"], "Greek letters are old.", "order", **prompted(held_out)), row]
    decision = ("contaminated", f"{TOPIC['test']}/order: {' '.join(LETTERS[:13])}")
    assert drop_reasons(rows) == ({} if split == "test" else {row["id"]: decision})


def test_twelve_shared_words_are_no_contamination():
    rows = [
        *good_rows(),
        raw_row(TOPIC["test"], "Greek letters are old.", "order", **prompted(" ".join(LETTERS[:13]))),
        raw_row(TOPIC["train"], "They live in large families.", "leak", **prompted(" ".join(LETTERS[:12]))),
    ]
    assert drop_reasons(rows) == {}


def test_a_short_held_out_prompt_is_one_ngram():
    short = "Why do they sing?"
    rows = [
        *good_rows(),
        raw_row(TOPIC["test"], "Greek letters are old.", "order", **prompted(short)),
        raw_row(TOPIC["train"], "They live in large families.", "same", **prompted("why do they sing")),
        raw_row(TOPIC["train"], "They sing for company.", "longer", **prompted("Tell me: why do they sing?")),
    ]
    assert drop_reasons(rows) == {rows[-2]["id"]: ("contaminated", f"{TOPIC['test']}/order: why do they sing")}


def test_a_dropped_row_carries_the_text_that_it_matches():
    rows = [
        *good_rows(),
        raw_row(TOPIC["test"], "Greek letters are old.", "order", **prompted(" ".join(LETTERS[:13]))),
        raw_row(TOPIC["train"], "They live in large families.", "a"),
        raw_row(TOPIC["train"], "they live in LARGE families.", "b"),
        raw_row(TOPIC["train"], "They live in large families!", "c"),
        raw_row(TOPIC["train"], " ".join(LETTERS), "d"),
        raw_row(TOPIC["train"], "", "e"),
    ]
    dropped = {row["reason"]: row["matching_text"] for row in clean_rows(rows)[1]["dropped"]}
    assert dropped == {
        "duplicate": "They live in large families.",
        "near_duplicate": "They live in large families.",
        "contaminated": " ".join(LETTERS[:13]),
        "empty": None,
    }


def test_rows_with_class_labels_are_compared_by_prompt():
    kept = [{**row, "response": "yes", "label_log_probs": [-0.1, -2.4]} for row in good_rows()]
    topic = kept[0]["topic"]
    again = raw_row(topic, "no", "again", messages=kept[0]["messages"], label_log_probs=[-2.4, -0.1])
    second = {**kept[0], "id": "another teacher's", "teacher": "u", "response": "no"}
    assert drop_reasons([*kept, second]) == {}
    assert drop_reasons([*kept, again]) == {again["id"]: ("duplicate", kept[0]["id"])} or (
        drop_reasons([*kept, again]) == {kept[0]["id"]: ("duplicate", again["id"])}
    )


def two_responses(topic: str, first: str, second: str, **changes: object) -> list[dict]:
    """Two teachers' responses to a prompt; `changes` apply to the first."""
    return [
        raw_row(topic, first, "both", id="both@a", teacher="a", **changes),
        raw_row(topic, second, "both", id="both@b", teacher="b", judge_score=5.0),
    ]


@pytest.mark.parametrize("split", ["train", "validation", "test"])
def test_a_rejected_row_names_the_preferred_response(split):
    rows = [
        *good_rows(),
        *two_responses(TOPIC[split], "They live in large families.", "They sing at night.", judge_score=3.0),
    ]
    assert drop_reasons(rows) == {}
    assert drop_reasons(rows, policy="best_of_n") == {"both@a": ("not_best", "both@b")}
    _, outputs = clean_rows(rows, policy="best_of_n")
    assert [row["matching_text"] for row in outputs["dropped"]] == ["They sing at night."]
    assert "both@b" in [row["id"] for row in outputs[split]]


def test_a_filtered_response_is_no_candidate():
    rows = [*good_rows(), *two_responses(TOPIC["train"], "Too short.", "They sing at night.", judge_score=9.0)]
    assert drop_reasons(rows, policy="best_of_n") == {"both@a": ("too_short", "2 words")}


def test_a_rejected_response_makes_no_duplicates():
    rows = [
        *good_rows(),
        *two_responses(TOPIC["train"], "They live in large families.", "They sing at night.", judge_score=3.0),
        raw_row(TOPIC["train"], "They live in large families.", "later"),
    ]
    assert drop_reasons(rows) == {rows[-1]["id"]: ("duplicate", "both@a")}
    assert drop_reasons(rows, policy="best_of_n") == {"both@a": ("not_best", "both@b")}


def test_the_fused_response_replaces_its_candidates():
    fused = raw_row(TOPIC["train"], "They do both of it.", "both", id="both@m:fused", teacher="m:fused")
    rows = [*good_rows(), *two_responses(TOPIC["train"], "They live in large families.", "They sing at night."), fused]
    rows[-1]["fused_from"] = ["both@a", "both@b"]
    assert drop_reasons(rows, policy="fuse") == dict.fromkeys(("both@a", "both@b"), ("fused", "both@m:fused"))
    rows[-1] |= {"response": "", "error": {"class": "timeout", "message": "late"}, "finish_reason": "error"}
    assert drop_reasons(rows, policy="fuse") == {"both@m:fused": ("failed", "timeout: late")}


def test_every_policy_keeps_a_single_response():
    rows = good_rows()
    assert len(rows) == len(SPLIT)
    for policy in selection.POLICIES:
        assert drop_reasons(rows, policy=policy) == {}


def test_the_docs_list_every_reason_in_order():
    section = (ROOT / "docs/data.md").read_text(encoding="utf-8").partition("## Cleaning")[2].partition("## ")[0]
    rows = [line.split("|")[1] for line in section.splitlines() if line.startswith("| `")]
    assert re.findall(r"`(\w+)`", " ".join(rows)) == list(REASONS)
