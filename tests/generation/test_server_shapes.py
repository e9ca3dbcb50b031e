"""Replies as real servers write them: their reasons to finish, errors, thinking, refused fields and prices."""

import json
from dataclasses import replace
from typing import Any

import pytest
import query_run
from chat_server import Reply, api_teacher, chat_server, completion
from pydantic import ValidationError
from query_run import query_teacher, response_rows, teacher

from distill.core.errors import UserError
from distill.generation.api import capabilities
from distill.generation.api.parsing import from_content
from distill.generation.completions import Completion, Request
from distill.generation.query import query
from distill.generation.teacher_journals import remaining_budget
from distill.params.teachers import ApiTeacher

PROBES = len(capabilities.SEEDS)
PRICE = {"prompt": 1.0, "completion": 10.0}


def read(choice: dict[str, Any], **fields: Any) -> Completion:
    """The completion of a reply with that choice, to a request for at most 16 tokens."""
    body = {"id": "x", "object": "chat.completion", "choices": [choice]} | fields
    return from_content(Request("r", [], 0), json.dumps(body).encode(), 16, "no-key")


def said(content: Any, finish: str | None = "stop", **fields: Any) -> dict[str, Any]:
    return {"index": 0, "message": {"role": "assistant", "content": content}, "finish_reason": finish} | fields


def usage(prompt: int, response: int, **fields: Any) -> dict[str, Any]:
    return {"prompt_tokens": prompt, "completion_tokens": response} | fields


@pytest.mark.parametrize(
    ("server", "written", "meant"),
    [
        ("OpenAI", "stop", "stop"), ("OpenAI", "length", "length"), ("OpenAI", "content_filter", "content_filter"),
        ("OpenAI", "tool_calls", "other"), ("TGI", "eos_token", "stop"), ("TGI", "stop_sequence", "stop"),
        ("Together", "eos", "stop"), ("Gemini", "STOP", "stop"), ("Gemini", "MAX_TOKENS", "length"),
        ("Gemini", "SAFETY", "content_filter"), ("Mistral", "model_length", "length"), ("Cohere", "COMPLETE", "stop"),
        ("Anthropic", "end_turn", "stop"), ("Anthropic", "max_tokens", "length"), ("unknown", "new_reason", "other"),
    ],
)  # fmt: skip
def test_each_servers_reason_to_finish_is_read(server, written, meant):
    assert read(said("hi", written), usage=usage(5, 8)).finish_reason == meant, server


@pytest.mark.parametrize(
    ("written", "tokens", "meant"),
    [(None, 8, "stop"), (None, 16, "length"), (None, None, "other"), ("new_reason", 16, "length"), (7, 8, "other")],
)
def test_without_a_reason_the_tokens_used_tell(written, tokens, meant):
    fields = {} if tokens is None else {"usage": usage(5, tokens)}
    assert read(said("hi", written), **fields).finish_reason == meant


@pytest.mark.parametrize(
    ("choice", "kind", "message"),
    [
        ({"error": {"code": 502, "message": "Provider died"}, "finish_reason": "error",
          "message": {"content": ""}}, "http_502", "Provider died"),
        ({"error": {"code": "busy", "message": "Provider died"}, "message": {"content": "Half an ans"}},
         "server_error", "Provider died"),
        (said("Half an ans", "error"), "server_error", "finish_reason error"),
        (said("Half an ans", "insufficient_system_resource"), "server_error",
         "finish_reason insufficient_system_resource"),
    ],
)  # fmt: skip
def test_an_error_inside_a_choice_is_a_failure(choice, kind, message):
    result = read(choice, usage=usage(5, 3))
    assert result.error is not None
    assert (result.error["class"], result.error["message"], result.response) == (kind, message, "")
    assert result.usage == usage(5, 3)


def test_a_failed_choice_is_queried_again(tmp_path):
    broken = [True]

    def script(_, body):
        value = completion(body)
        if broken[0] and body["messages"][0]["content"] == "question 0001":
            value["choices"][0] |= {"error": {"code": 502, "message": "Provider died"}, "finish_reason": "error"}
        return Reply(body=json.dumps(value))

    with chat_server(script) as server:
        api = teacher(server.url)
        rows = response_rows(api, query_teacher(tmp_path, api, 3), tmp_path, 3)
        assert [row["error"] and row["error"]["class"] for row in rows] == [None, "http_502", None]
        broken[0] = False
        rows = response_rows(api, query_teacher(tmp_path, api, 3), tmp_path, 3)
    assert all(row["error"] is None for row in rows)
    assert len(server.bodies) == PROBES + 4


@pytest.mark.parametrize(
    ("text", "response"),
    [
        ("<think>\nTwo and two.\n</think>\n\nFour.", "Four."),  # DeepSeek R1, Qwen 3
        ("Two and two.\n</think>\n\nFour.", "Four."),  # the template has the opening tag
        ("\n<thought>Two and two.</thought>Four.", "Four."),  # Gemini
        ("[THINK]Two and two.[/THINK]Four.", "Four."),  # Magistral
        ("\u25c1think\u25b7Two.\u25c1/think\u25b7Four.", "Four."),  # Kimi
        ("<|channel|>analysis<|message|>Two.<|end|><|start|>assistant<|channel|>final<|message|>Four.", "Four."),
        ("Four.", "Four."),
        ("Write <think>two</think> around it.", "Write <think>two</think> around it."),
        ([{"type": "thinking", "thinking": [{"type": "text", "text": "Two."}]}, {"type": "text", "text": "Four."}],
         "Four."),  # Mistral
    ],
)  # fmt: skip
def test_thinking_is_no_part_of_the_response(text, response):
    assert read(said(text)).response == response


@pytest.mark.parametrize("content", [None, "", "<think>Two and two are", "Well </think>"])
def test_thinking_without_a_response_is_a_failure(content):
    result = read(said(content, "length"), usage=usage(5, 16))
    assert result.error is not None
    assert result.error["class"] == "empty"
    assert "no text within 16 tokens" in result.error["message"]


def test_log_probabilities_are_those_of_the_response():
    words = ["<think>", "two", "</think>", "\n\n", "Fo", "ur."]
    tokens = [
        {"token": word, "logprob": -float(number), "top_logprobs": [{"logprob": -number}, {"logprob": -number - 0.5}]}
        for number, word in enumerate(words)
    ]
    result = read(said("".join(words), logprobs={"content": tokens}))
    assert (result.response, result.logprobs, result.margins) == ("Four.", [-4.0, -5.0], [0.5, 0.5])
    assert read(said("".join(words) + "!", logprobs={"content": tokens})).logprobs is None


@pytest.mark.parametrize(("value", "known"), [(True, None), ("-1", None), (0.5, None), (1e-6, [0.0]), (0, [0.0])])
def test_only_log_probabilities_are_taken_for_some(value, known):
    tokens = [{"token": "hi", "logprob": value}]
    assert read(said("hi", logprobs={"content": tokens})).logprobs == known


def test_thinking_in_the_total_alone_is_billed():
    assert read(said("hi"), usage=usage(5, 8, total_tokens=113)).usage == usage(5, 108)  # xAI, Gemini
    assert read(said("hi"), usage=usage(5, 8, total_tokens=13)).usage == usage(5, 8)
    assert read(said("hi"), usage=usage(5, 8, total_tokens=10**400)).usage == usage(5, 8)
    assert read(said("hi"), usage=usage(5, True)).usage is None


REFUSALS = {
    "Mistral": (422, {"detail": [{"type": "extra_forbidden", "loc": ["body", "seed"], "msg": "Extra inputs"}]}),
    "Gemini": (400, [{"error": {"code": 400, "message": "Invalid JSON payload received. Unknown name \"seed\""}}]),
    "OpenAI": (400, {"error": {"message": "Unsupported parameter: 'seed'", "type": "invalid_request_error"}}),
}  # fmt: skip


@pytest.mark.parametrize("server", REFUSALS)
def test_a_refused_field_is_named_and_can_be_left_out(tmp_path, server):
    status, body = REFUSALS[server]

    def script(_, sent):
        refused = sent.keys() & {"seed", "frequency_penalty", "presence_penalty"}
        return Reply(status, json.dumps(body)) if refused else Reply(body=json.dumps(completion({"seed": 0} | sent)))

    with chat_server(script) as endpoint:
        with pytest.raises(UserError, match="seed") as error:
            query_teacher(tmp_path, teacher(endpoint.url), 3)
        assert "null in extra_body" in str(error.value)
        assert len(endpoint.bodies) == 2  # with and without log-probabilities
        without = {"seed": None, "frequency_penalty": None, "presence_penalty": None}
        api = teacher(endpoint.url, extra_body=without)
        rows = response_rows(api, query_teacher(tmp_path, api, 3, required=()), tmp_path, 3)
    assert all(row["error"] is None for row in rows)
    assert not endpoint.bodies[-1].keys() & without.keys()


def test_a_servers_reason_is_shown_within_bounds(tmp_path):
    reply = Reply(400, json.dumps({"error": {"message": "\x1b[31mno\n" + "x" * 10**4}}))
    with chat_server(lambda *_: reply) as server, pytest.raises(UserError, match="no xxx") as error:
        query_teacher(tmp_path, teacher(server.url), 3)
    assert len(str(error.value)) < 1000
    assert "\x1b" not in str(error.value)


NESTED = {
    "chat_template_kwargs": {"enable_thinking": False}, "provider": {"order": ["a", "b"], "allow_fallbacks": False},
    "stop": ["\n\n"], "logit_bias": {"50256": -100}, "top_k": 20,
}  # fmt: skip


def test_nested_fields_of_extra_body_are_sent(tmp_path):
    with chat_server() as server:
        api = teacher(server.url, extra_body=NESTED)
        query_teacher(tmp_path, api, 1)
    assert {key: server.bodies[-1][key] for key in NESTED} == NESTED


@pytest.mark.parametrize(
    "value",
    [
        {"a": float("nan")},
        {"a": {1: 2}},
        {"a": [object()]},
        {"n": 2},
        {"stream": True},
        {"model": "x"},
        {"a": "\ud800"},
    ],
)
def test_extra_body_is_json_without_fixed_fields(value):
    with pytest.raises(ValidationError):
        ApiTeacher(**api_teacher("http://host/v1", extra_body=value))


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (402, {"error": {"message": "Insufficient Balance", "type": "unknown_error", "code": "invalid_request_error"}}),
        (402, {"error": {"message": "This request requires more credits", "code": 402}}),
        (200, {"error": {"message": "This request requires more credits", "code": 402}}),
        (429, {"error": {"message": "You exceeded your current quota", "code": "insufficient_quota"}}),
    ],
)  # DeepSeek, OpenRouter twice, OpenAI
def test_an_account_without_credit_stops_the_run(tmp_path, status, body):
    with chat_server(lambda number, _: Reply(status, json.dumps(body)) if number >= PROBES + 10 else None) as server:
        with pytest.raises(UserError, match="no quota left") as error:
            query_teacher(tmp_path, teacher(server.url), 60)
        assert body["error"]["message"] in str(error.value)
        assert len(server.bodies) <= PROBES + 10 + 8


def test_failures_of_one_class_that_pile_up_stop_the_run(tmp_path):
    reply = Reply(500, '{"error": {"message": "out of memory"}}', {"retry-after-ms": "1"})
    with chat_server(lambda number, _: reply if number >= PROBES + 5 else None) as server:
        with pytest.raises(UserError, match=r"ended as http_500 \(out of memory\)"):
            query_teacher(tmp_path, teacher(server.url, max_retries=0), 200)
        assert len(server.bodies) <= PROBES + 5 + 10 + 8


def test_few_failures_of_many_stop_nothing(tmp_path):
    def script(number, _):
        return Reply(500, "{}", {"retry-after-ms": "1"}) if number > PROBES and number % 3 == 0 else None

    with chat_server(script) as server:
        query_teacher(tmp_path, teacher(server.url, max_retries=0), 60)
    assert len(server.bodies) == PROBES + 60


def test_a_model_that_thinks_first_is_probed_with_more_tokens(tmp_path):
    def script(_, body):
        value = completion(body)
        if body["max_tokens"] < 200:
            value["choices"][0] |= said("", "length")
        return Reply(body=json.dumps(value))

    with chat_server(script) as server:
        with pytest.raises(UserError, match=r"no text within 16 tokens"):
            query_teacher(tmp_path, teacher(server.url), 20)
        assert [body["max_tokens"] for body in server.bodies[: PROBES + 1]] == [24, *[2048] * PROBES]


def test_the_maximum_may_have_another_name(tmp_path):
    with chat_server() as server:
        extra = {"max_tokens": None, "max_completion_tokens": 2000}
        api = teacher(server.url, extra_body=extra, price=PRICE)
        with pytest.raises(UserError, match=r"can cost 0\.020"):
            query_teacher(tmp_path, api, 1, budget=0.01)
        query_teacher(tmp_path, api, 1)
    assert all("max_tokens" not in body and body["max_completion_tokens"] == 2000 for body in server.bodies)


def test_thinking_without_end_costs_three_requests(tmp_path):
    def script(_, body):
        value = completion(body)
        value["choices"][0] |= said(None, "length")
        return Reply(body=json.dumps(value))

    with chat_server(script) as server, pytest.raises(UserError, match="A model that thinks first"):
        query_teacher(tmp_path, teacher(server.url), 20)
    assert [body["max_tokens"] for body in server.bodies] == [24, 2048, 2048]


def test_thinking_billed_beyond_the_maximum_keeps_the_budget(tmp_path):
    def script(number, body):
        tokens = 300 + 20 * (number % 10)
        return Reply(body=json.dumps(completion(body) | {"usage": usage(5, tokens)}))

    with chat_server(script, delay=0.01) as server:
        api = teacher(server.url, price=PRICE, concurrency=16)
        with pytest.raises(UserError, match="the budget is used up"):
            query_teacher(tmp_path, api, 60, budget=0.05)
        spent = remaining_budget(None, [api], tmp_path).spent
        assert 0.03 < spent <= 0.05
        assert len(server.bodies) > 8
        query_teacher(tmp_path, api, 60, budget=1.0)
    assert remaining_budget(None, [api], tmp_path).spent <= 1.0


def test_too_many_failures_are_no_success(tmp_path):
    def script(_, body):
        failing = int(body["messages"][0]["content"].split()[-1]) < 3 if "question" in str(body["messages"]) else False
        return Reply(400, '{"error": {"message": "too long"}}') if failing else None

    with chat_server(script) as server:
        api = teacher(server.url)
        context = query_run.query_context(tmp_path, api)
        items = query_run.requests(api, context, 20)
        query(api, items, query_run.SAMPLING, replace(context, max_failed_fraction=0.15))
        with pytest.raises(UserError, match=r"got 3 failures of 20 \(http_400 3\). One of them: too long"):
            query(api, items, query_run.SAMPLING, replace(context, max_failed_fraction=0.1))
