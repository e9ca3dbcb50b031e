"""Usage of teachers: metrics/generate.json."""

import tiny
from chat_server import api_teacher

from distill.generation.completions import Completion, Request, failed_completion
from distill.generation.rows import response_row
from distill.generation.usage import count_usage
from distill.params.teachers import ApiTeacher, LocalTeacher

PROMPT = {"id": "ants/what", "topic": "ants", "messages": [{"role": "user", "content": "What are ants?"}]}
GOOD = Completion("r", " hi ", "stop", [-1.0], {"prompt_tokens": 3, "completion_tokens": 2}, None)
FAILED = failed_completion(Request("r", [], 1), "timeout", "late", attempts=3)


def test_usage_counts_requests_failures_tokens_and_cost():
    priced = ApiTeacher(**api_teacher("http://host/v1", price={"prompt": 1.0, "completion": 10.0}))
    unpriced = ApiTeacher(**api_teacher("http://host/v1"))
    local = LocalTeacher(**(tiny.params()["teachers"][0] | {"name": "t0"}))
    rows = [response_row(PROMPT, "api", number, item, []) for number, item in enumerate([GOOD, FAILED, GOOD])]
    probe = {"usage": True, "prompt_tokens": 100, "completion_tokens": 10}
    assert count_usage(rows, [priced, local], {"api": probe, "t0": None}) == {
        "api": {"requests": 3, "answered": 2, "failed": {"timeout": 1}, "prompt_tokens": 6, "completion_tokens": 4,
                "cost_usd": 0.000246, "probe": probe},
        "t0": {"requests": 0, "answered": 0, "failed": {}, "prompt_tokens": 0, "completion_tokens": 0, "cost_usd": 0,
               "probe": None},
    }  # fmt: skip
    assert count_usage(rows, [unpriced], {"api": None})["api"]["cost_usd"] is None
