"""Reading and checking rows of responses."""

import pytest
from raw_rows import raw_row, read_responses

from distill.core.errors import UserError

BROKEN = [
    ({"response": None}, "response: input should be a valid string"),
    ({"messages": []}, "messages: list should have at least 1 item"),
    ({"messages": [{"role": "user"}]}, "messages.0.content: field required"),
    ({"finish_reason": "done"}, "finish_reason: input should be 'stop'"),
    ({"logprobs": [-0.5, float("nan")]}, "logprobs.1: input should be a finite number"),
    ({"usage": {"prompt_tokens": "9", "completion_tokens": 2}}, "usage.prompt_tokens: input should be a valid integer"),
    ({"error": {"message": "?"}}, "error.class: field required"),
    ({"sample": -1}, "sample: input should be greater than or equal to 0"),
    ({"entropies": [float("inf")]}, "entropies.0: input should be a finite number"),
    ({"margins": ["0.1"]}, "margins.0: input should be a valid number"),
    ({"judge_score": "good"}, "judge_score: input should be a valid number"),
    ({"fused_from": [1]}, "fused_from.0: input should be a valid string"),
    ({"degraded": "no_logprobs"}, "degraded: input should be a valid list"),
]


@pytest.mark.parametrize(("changes", "message"), BROKEN)
def test_a_broken_row_is_named_by_line_id_and_mistake(changes, message):
    with pytest.raises(UserError) as caught:
        read_responses([raw_row("ants", "One."), {**raw_row("bees", "Two."), **changes}])
    assert "responses.jsonl, line 2 (id 'bees/fact@t') is broken: " + message in str(caught.value)


def test_missing_keys_repeated_ids_and_no_rows_are_refused():
    row = raw_row("ants", "One.")
    with pytest.raises(UserError, match=r"line 1 .*teacher: field required"):
        read_responses([{key: value for key, value in row.items() if key != "teacher"}])
    with pytest.raises(UserError, match=r"line 2 .*has the id of an earlier line"):
        read_responses([row, row])
    with pytest.raises(UserError, match="has no rows"):
        read_responses([])


def test_rows_are_sorted_by_prompt_teacher_and_sample():
    rows = [
        raw_row("bees", "One."),
        raw_row("ants", "Two.", id="x", teacher="b"),
        raw_row("ants", "Three.", id="y/10", teacher="a", sample=10),
        raw_row("ants", "Four.", id="y/2", teacher="a", sample=2),
        raw_row("ants", "Five.", id="y", teacher="a"),
    ]
    assert [row["response"] for row in read_responses(rows)] == ["Five.", "Four.", "Three.", "Two.", "One."]
