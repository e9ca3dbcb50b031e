"""Replies of hostile and broken servers: hundreds to the parser, some through a real server."""

import gzip
import html
import itertools
import json
import random
import time
import urllib.parse
from collections.abc import Iterator
from typing import Any

import pytest
from batch_server import batch_server
from chat_server import Reply, chat_server, completion
from pydantic import ValidationError
from query_run import KEY, SAMPLING, query_teacher, response_rows, teacher

from distill.core.errors import UserError
from distill.core.response_row import ResponseRow
from distill.generation.api import batch, batch_endpoint, capabilities, http
from distill.generation.api.parsing import from_content, from_result_line
from distill.generation.api.secrets import hide_key, shown
from distill.generation.budget import cost
from distill.generation.completions import MAX_COUNT, Completion, Request
from distill.generation.journal import Journal
from distill.generation.rows import response_row
from distill.params.teachers import Price

PROBES = len(capabilities.SEEDS)
REQUEST = Request("r", [{"role": "user", "content": "hi"}], 0)
PROMPT = {"id": "p", "topic": "t", "messages": REQUEST.messages}
DEEP = "[" * 300 + "]" * 300
VALUES = (
    "null", "true", "false", "0", "-1", "0.5", "1e400", "-1e400", "NaN", "Infinity", "1" + "0" * 400, "-" + "9" * 400,
    '""', '"x"', '"\\ud800"', '"\\u0000\\u001b[31m"', '"STOP"', "[]", "[[]]", "{}", '{"a": 1}', "[null]", DEEP,
)  # fmt: skip
BODY = completion({"model": "m", "messages": []})


def paths(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The path of each value in JSON; of a list only the first and the second item."""
    yield path
    children = value.items() if isinstance(value, dict) else enumerate(value[:2]) if isinstance(value, list) else ()
    for key, child in children:
        yield from paths(child, (*path, key))


def mutated(path: tuple[Any, ...], text: str) -> bytes:
    """The body of a good reply with one value replaced by a JSON text."""
    if not path:
        return text.encode()
    body = json.loads(json.dumps(BODY))
    parent = body
    for key in path[:-1]:
        parent = parent[key]
    parent[path[-1]] = "REPLACED"
    return json.dumps(body).replace('"REPLACED"', text).encode()


def random_bodies(count: int) -> Iterator[bytes]:
    """Good replies with bytes changed, cut or repeated."""
    chance, good = random.Random(0), json.dumps(BODY).encode()
    for _ in range(count):
        body = bytearray(good)
        for _ in range(chance.randrange(1, 6)):
            place = chance.randrange(len(body))
            match chance.randrange(4):
                case 0:
                    body[place] = chance.randrange(256)
                case 1:
                    del body[place:]
                case 2:
                    del body[place : place + chance.randrange(20)]
                case _:
                    body[place:place] = body[place : place + chance.randrange(40)]
            body = body or bytearray(b"x")
        yield bytes(body)


def require_sound(result: Completion) -> None:
    """A completion can be journaled, becomes a row, and has possible numbers only."""
    assert len(json.dumps(vars(result), allow_nan=False, ensure_ascii=False).encode()) < 10**5
    row = response_row(PROMPT, "a", 0, result, [])
    assert ResponseRow.model_validate(row, strict=True).to_json() == row
    if result.usage is not None:
        assert all(type(count) is int and 0 <= count <= MAX_COUNT for count in result.usage.values())
        assert cost(Price(prompt=1.0, completion=1.0), result.usage) >= 0
    for values in (result.logprobs, result.margins):
        assert values is None or all(type(value) is float for value in values)
    assert result.logprobs is None or max(result.logprobs) <= 0
    assert (result.finish_reason == "error") == (result.error is not None)
    if result.error is not None:
        assert result.error["message"].isprintable()
        assert len(result.error["message"]) <= 300


def test_every_value_of_a_reply_may_be_any_other():
    cases = list(itertools.product(paths(BODY), VALUES))
    assert len(cases) > 500
    for path, text in cases:
        require_sound(from_content(REQUEST, mutated(path, text), 16, KEY))
        line = b'{"custom_id": "r", "response": {"status_code": 200, "body": ' + mutated(path, text) + b"}}"
        result = from_result_line(line, 16, KEY)
        if result is not None:
            require_sound(result)


@pytest.mark.parametrize("field", ["custom_id", "response", "error", "status_code", "body", "code", "message"])
def test_every_value_of_a_batch_line_may_be_any_other(field):
    for text in VALUES:
        line = {"custom_id": "r", "response": {"status_code": 500, "body": {"error": {"message": "m"}}}, "error": None}
        if field in ("status_code", "body"):
            line["response"][field] = "REPLACED"
        elif field in ("code", "message"):
            line["error"] = {field: "REPLACED"}
        else:
            line[field] = "REPLACED"
        result = from_result_line(json.dumps(line).replace('"REPLACED"', text).encode(), 16, KEY)
        if result is not None and result.id == "r":  # no other is journaled
            require_sound(result)


def test_random_bytes_are_a_failure_or_a_sound_response():
    for body in random_bodies(1500):
        require_sound(from_content(REQUEST, body, 16, KEY))


@pytest.mark.parametrize("unit", ["[", '{"a":', '{"error":', '{"choices":[', '{"choices":[{"message":'])
def test_nesting_of_any_depth_is_a_failure(unit):
    for depth in (50, 300, *range(900, 1000, 7), 10_000, 100_000):
        closing = "".join({"[": "]", "{": "}"}[sign] for sign in reversed(unit) if sign in "[{")
        for body in (unit * depth, unit * depth + "1" + closing * depth):
            result = from_content(REQUEST, body.encode(), 16, KEY)
            assert result.error is not None
            require_sound(result)


KEYS = (KEY, "sk-proj/a+b=c\"d'e\\f<g>&h%20i", "0123456789abcdef")
SPELLINGS = {
    "plain": str, "repr": repr, "bytes": lambda key: repr(key.encode()), "twice": lambda key: repr(repr(key)),
    "JSON": json.dumps, "JSON in JSON": lambda key: json.dumps(json.dumps(key)),
    "JSON escapes": lambda key: "".join(f"\\u{ord(letter):04X}" for letter in key),
    "bytes escapes": lambda key: "".join(f"\\x{ord(letter):02x}" for letter in key),
    "URL": lambda key: urllib.parse.quote(key, safe=""), "form": urllib.parse.quote_plus,
    "URL twice": lambda key: urllib.parse.quote(urllib.parse.quote(key, safe=""), safe=""),
    "URL, every letter": lambda key: "".join(f"%{ord(letter):02x}" for letter in key),
    "HTML": html.escape, "HTML numbers": lambda key: "".join(f"&#{ord(letter)};" for letter in key),
    "other case": str.swapcase, "wrapped": lambda key: f"{key[:9]}\r\n {key[9:]}",
    "UTF-16": lambda key: key.encode("utf-16-le").decode(),
}  # fmt: skip


@pytest.mark.parametrize("key", KEYS)
@pytest.mark.parametrize("spelling", SPELLINGS)
def test_the_key_is_hidden_in_every_spelling(key, spelling):
    text = f"a {SPELLINGS[spelling](key)} z"
    hidden = hide_key(text.encode(), key).decode()
    assert hidden.strip("az b'\"\\\0") == "***"
    assert shown(text, key).strip("az b'\"\\") == "***"


def test_replies_without_the_key_stay_as_they_are():
    body = json.dumps(BODY).encode() + b"\\\\ %20 &amp; \\u0041"
    assert hide_key(body, KEY) == body
    assert hide_key(b"an EMPTY word", "EMPTY") == b"an EMPTY word"


ECHOES = {
    "error object": '{{"error": {{"message": "bad {0}", "code": "{0}", "type": "{0}"}}}}',
    "no JSON": "<html>{0}</html>",
    "finish_reason": '{{"choices": [{{"message": {{"content": "hi"}}, "finish_reason": "error {0}"}}]}}',
    "error in a choice": '{{"choices": [{{"error": {{"message": "{0}"}}, "finish_reason": "error"}}]}}',
    "response": '{{"choices": [{{"message": {{"content": "your key is {0}"}}, "finish_reason": "stop"}}]}}',
    "no choices": '{{"{0}": ["{0}"]}}',
}


@pytest.mark.parametrize("status", [200, 400, 500])
@pytest.mark.parametrize("echo", ECHOES)
def test_a_server_that_echoes_the_key_writes_it_nowhere(tmp_path, echo, status):
    spelled = [SPELLINGS[name](KEY).strip("'\"") for name in ("plain", "JSON escapes", "URL, every letter")]

    def script(number, _):
        if number < PROBES:
            return None
        body = ECHOES[echo].format(spelled[number % 3].replace("\\", "\\" if status == 200 else "\\\\"))
        return Reply(status, body, {"x-request-id": KEY, "retry-after-ms": "1"})

    with chat_server(script) as server:
        api = teacher(server.url, max_retries=0)
        rows = response_rows(api, query_teacher(tmp_path, api, 6), tmp_path, 6)
    text = json.dumps(rows) + "".join(path.read_text() for path in tmp_path.rglob("*") if path.is_file())
    assert "***" in text or echo == "finish_reason"
    assert all(spelling not in text for name in SPELLINGS for spelling in [SPELLINGS[name](KEY).strip("'\"")])


def failing(body: str | bytes, **options: Any):
    """A server's script that replies so to the first prompt only."""

    def script(_, sent):
        text = sent["messages"][0]["content"]
        return Reply(200, body, **options) if text == "question 0000" else None

    return script


@pytest.mark.parametrize(
    ("script", "kind"),
    [
        (failing("[" * 100_000), "invalid_response"),
        (failing("x", pause=0.05), "timeout"),  # a drip
        (failing("x" * 2**16, pause=0.0), "invalid_response"),  # a flood
        (failing(gzip.compress(bytes(2**26)), headers={"Content-Encoding": "gzip"}), "invalid_response"),  # a bomb
        (failing("no gzip", headers={"Content-Encoding": "gzip"}), "invalid_response"),
        (failing("{}", headers={"Content-Type": "application/json; charset=rot13"}), "invalid_response"),
        (failing(b"\xff\xfe{}"), "invalid_response"),
    ],
)
def test_a_hostile_reply_costs_its_request_and_no_other(tmp_path, monkeypatch, script, kind):
    monkeypatch.setattr(http, "MAX_REPLY_BYTES", 2**22)
    monkeypatch.setattr(http, "GRACE_S", 0.1)
    start = time.monotonic()
    with chat_server(script) as server:
        api = teacher(server.url, max_retries=0, timeout_s=1.0)
        rows = response_rows(api, query_teacher(tmp_path, api, 6), tmp_path, 6)
    assert [row["error"] and row["error"]["class"] for row in rows] == [kind, *[None] * 5]
    assert time.monotonic() - start < 20


@pytest.mark.parametrize("status", [400, 402, 404, 429, 500])
@pytest.mark.parametrize("depth", [300, 950, 985, 5000])
def test_errors_of_any_depth_give_one_message(tmp_path, status, depth):
    body = '{"error":' * depth + "1" + "}" * depth
    reply = Reply(status, body, {"Retry-After": "Thu, 99 Foo 99999 99:99:99", "retry-after-ms": "nan"})
    with chat_server(lambda *_: reply) as server, pytest.raises(UserError) as error:
        query_teacher(tmp_path, teacher(server.url, max_retries=0), 2)
    assert len(str(error.value)) < 1500
    assert str(error.value).isprintable()


def endless_list(number: int) -> dict[str, Any]:
    return {"object": "list", "data": [{"id": f"b{number}", "status": "completed"}], "has_more": True}


@pytest.mark.parametrize("pages", ["new", "the same"])
def test_a_list_of_batches_without_end_ends(tmp_path, monkeypatch, pages):
    monkeypatch.setattr(batch, "FIRST_POLL_S", 0.02)
    monkeypatch.setattr(batch_endpoint, "MAX_PAGES", 20)
    served: list[int] = []
    with batch_server(polls=0) as server:
        server.pages = lambda: served.append(0) or endless_list(len(served) if pages == "new" else 0)
        api = teacher(server.url, mode="batch", timeout_s=60.0)  # a time-out would list again
        server.hold_create = True
        with pytest.raises(UserError):
            query_teacher(tmp_path, api, 2)
        server.hold_create = False
        if pages == "new":
            with pytest.raises(UserError, match="a list without end"):
                query_teacher(tmp_path, api, 2)
            assert len(served) == 20
        else:
            rows = response_rows(api, query_teacher(tmp_path, api, 2), tmp_path, 2)
            assert all(row["error"] is None for row in rows)
            assert len(served) == 2


@pytest.mark.parametrize("kind", ["upload", "create", "poll"])
@pytest.mark.parametrize("text", ["[]", '{"id": "../files"}', DEEP * 400])
def test_a_batch_of_any_shape_gives_one_message(tmp_path, monkeypatch, kind, text):
    monkeypatch.setattr(batch, "FIRST_POLL_S", 0.01)
    with batch_server(polls=0, raw={kind: text}) as server:
        api = teacher(server.url, mode="batch", max_retries=0)
        with pytest.raises(UserError, match="refused a batch"):
            query_teacher(tmp_path, api, 2)


def test_every_value_of_a_batch_may_be_any_other():
    good = {"id": "b", "status": "completed", "output_file_id": "f", "error_file_id": None, "metadata": {"name": "n"},
            "errors": {"data": [{"message": "m"}]}, "request_counts": {"completed": 1}}  # fmt: skip
    for field, text in itertools.product(good, VALUES):
        value = json.loads(json.dumps(good | {field: "REPLACED"}).replace('"REPLACED"', text))
        try:
            found = batch_endpoint.Batch.model_validate(value)
        except ValidationError:
            continue
        assert json.dumps(found.id, ensure_ascii=False).encode().strip(b'"').isalnum()
        assert found.output_file_id is None or found.output_file_id.isalnum()


def test_impossible_counts_of_an_old_journal_are_unknown(tmp_path):
    settings = {"teacher": "a"}
    with Journal(tmp_path / "journal.jsonl", settings) as journal:
        huge = {"prompt_tokens": -5, "completion_tokens": 10**400}
        journal.append([Completion("r", "hi", "stop", None, huge, None, billed=huge)])
    with Journal(tmp_path / "journal.jsonl", settings) as journal:
        assert dict(journal.billed) == {"prompt_tokens": 0, "completion_tokens": 0}
        assert journal.latest["r"].usage is None
        assert journal.completed == {"r"}


def test_negative_usage_is_billed_in_full(tmp_path):
    def script(_, body):
        return Reply(body=json.dumps(completion(body) | {"usage": {"prompt_tokens": -(10**9), "completion_tokens": 5}}))

    with chat_server(script) as server, pytest.raises(UserError, match="the budget is used up"):
        query_teacher(
            tmp_path, teacher(server.url, price={"prompt": 1.0, "completion": 10.0}), 60, budget=0.004,
            required=("logprobs",),
        )  # fmt: skip
    assert PROBES <= len(server.bodies) < 0.004 / (10 * SAMPLING.max_tokens / 1e6)
