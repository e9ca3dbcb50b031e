"""Rows of data/raw/responses.jsonl."""

from dataclasses import replace

import pytest
from pydantic import ValidationError

from distill.core.response_row import ResponseRow
from distill.generation.completions import Completion, Request, failed_completion
from distill.generation.rows import response_row, with_scores

PROMPT = {"id": "ants/what", "topic": "ants", "messages": [{"role": "user", "content": "What are ants?"}]}
GOOD = Completion("r", " hi ", "stop", [-1.0], {"prompt_tokens": 3, "completion_tokens": 2}, None)
FAILED = failed_completion(Request("r", [], 1), "timeout", "late", attempts=3)


def test_a_row_names_its_sample_and_missing_capabilities():
    first = response_row(PROMPT, "a", 0, GOOD, [])
    second = response_row(PROMPT, "a", 2, GOOD, ["no_temperature"])
    assert (first["id"], first["sample"], first["response"]) == ("ants/what@a", 0, "hi")
    assert (second["id"], second["sample"], second["degraded"]) == ("ants/what@a/2", 2, ["no_temperature"])
    unscored = replace(GOOD, logprobs=None)
    assert response_row(PROMPT, "a", 0, unscored, [])["degraded"] == ["no_logprobs"]
    assert response_row(PROMPT, "a", 0, unscored, ["no_logprobs"])["degraded"] == ["no_logprobs"]


def test_a_failed_row_has_its_reason_but_not_its_attempts():
    row = response_row(PROMPT, "a", 0, FAILED, [])
    assert row["error"] == {"class": "timeout", "message": "late"}
    assert row["degraded"] == []


def test_a_row_has_label_fields_only_for_class_labels():
    prompt = PROMPT | {"label": "yes"}
    assert not {"label", "label_log_probs"} & set(response_row(prompt, "a", 0, GOOD, []))
    chosen = replace(GOOD, response="yes", label_log_probs=[-0.1, -2.4])
    assert list(response_row(prompt, "a", 0, chosen, []).items())[-2:] == [
        ("label_log_probs", [-0.1, -2.4]), ("label", "yes"),
    ]  # fmt: skip
    assert "label" not in response_row(PROMPT, "a", 0, chosen, [])


def test_rows_keep_the_order_of_their_fields():
    assert list(response_row(PROMPT, "a", 0, GOOD, [])) == [
        "id", "prompt_id", "topic", "teacher", "sample", "messages", "response", "finish_reason", "logprobs",
        "entropies", "margins", "usage", "degraded", "error", "judge_score", "fused_from",
    ]  # fmt: skip


def test_other_fields_of_a_message_are_kept():
    named = PROMPT | {"messages": [{"role": "user", "content": "Hi.", "name": "Ann"}]}
    assert response_row(named, "a", 0, GOOD, [])["messages"] == named["messages"]


def test_the_reader_takes_what_the_writer_writes():
    for completion in (GOOD, FAILED):
        row = response_row(PROMPT, "a", 0, completion, [])
        assert ResponseRow.model_validate(row, strict=True).to_json() == row
    with pytest.raises(ValidationError):
        ResponseRow.model_validate(response_row(PROMPT, "a", 0, GOOD, []) | {"sample": -1}, strict=True)


def test_scores_of_the_judge_are_by_row():
    rows = [response_row(PROMPT, "a", sample, GOOD, []) for sample in (0, 1)]
    assert [row["judge_score"] for row in with_scores(rows, {"ants/what@a/1": 7.0})] == [None, 7.0]
