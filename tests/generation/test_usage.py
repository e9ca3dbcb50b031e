"""Usage of teachers: metrics/generate.json."""

from dataclasses import replace

import tiny
from chat_server import api_teacher

from distill.generation.completions import Completion, Request, failed_completion
from distill.generation.query import QueryResult
from distill.generation.rows import response_row
from distill.generation.usage import count_usage, usage_lines
from distill.params.teachers import ApiTeacher, LocalTeacher

PROMPT = {"id": "ants/what", "topic": "ants", "messages": [{"role": "user", "content": "What are ants?"}]}
GOOD = Completion("r", " hi ", "stop", [-1.0], {"prompt_tokens": 3, "completion_tokens": 2}, None)
CUT = replace(GOOD, finish_reason="length")
FAILED = failed_completion(Request("r", [], 1), "timeout", "late", attempts=3)


def test_usage_counts_requests_failures_tokens_and_cost():
    priced = ApiTeacher(**api_teacher("http://host/v1", price={"prompt": 1.0, "completion": 10.0}))
    unpriced = ApiTeacher(**api_teacher("http://host/v1"))
    local = LocalTeacher(**(tiny.params()["teachers"][0] | {"name": "t0"}))
    rows = [response_row(PROMPT, "api", number, item, []) for number, item in enumerate([GOOD, FAILED, CUT])]
    probe = {"usage": True, "prompt_tokens": 100, "completion_tokens": 10}
    assert count_usage(rows, [priced, local], {"api": probe, "t0": None}) == {
        "api": {"requests": 3, "answered": 2, "truncated": 1, "failed": {"timeout": 1}, "prompt_tokens": 6,
                "completion_tokens": 4, "cost_usd": 0.000246, "probe": probe},
        "t0": {"requests": 0, "answered": 0, "truncated": 0, "failed": {}, "prompt_tokens": 0, "completion_tokens": 0,
               "cost_usd": 0, "probe": None},
    }  # fmt: skip
    assert count_usage(rows, [unpriced], {"api": None})["api"]["cost_usd"] is None


def test_truncated_responses_are_said_with_a_way_out():
    local = LocalTeacher(**(tiny.params()["teachers"][0] | {"name": "t0"}))

    def lines(completions):
        rows = [response_row(PROMPT, "t0", number, item, []) for number, item in enumerate(completions)]
        return list(usage_lines(count_usage(rows, [local], {"t0": None}), {"t0": QueryResult({}, None, [])}))

    said = lines([CUT, CUT, GOOD, FAILED])
    assert said[0] == "t0: 3 responses, 2 of them truncated, 1 failed {'timeout': 1}"
    assert "raise it" in said[1]
    assert lines([GOOD]) == ["t0: 1 responses, 0 of them truncated, 0 failed"]
