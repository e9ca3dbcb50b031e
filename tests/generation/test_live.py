"""Live queries of a chat endpoint: completions, retries and fatal errors."""

import json
import socket

import pytest
from chat_server import Reply, chat_server, completion
from chat_server import api_teacher as entry
from tqdm import tqdm

from distill.core.errors import UserError
from distill.generation.api import live
from distill.generation.api.client import QueryJob
from distill.generation.budget import Budget
from distill.generation.completions import Completion, Request
from distill.generation.journal import Journal
from distill.generation.teacher_journals import endpoint
from distill.modeling.sampling import Sampling, request_seed
from distill.params.teachers import ApiTeacher

KEY = "sk-very-secret-key"
SAMPLING = Sampling(max_tokens=17, temperature=0.3, top_p=0.9, seed=5)


def teacher(url: str, **changes: object) -> ApiTeacher:
    return ApiTeacher(**entry(url, **({"timeout_s": 0.5} | changes)))


def requests(count: int) -> list[Request]:
    return [
        Request(f"r{number}", [{"role": "user", "content": f"question {number}"}], number) for number in range(count)
    ]


@pytest.fixture
def complete(tmp_path):
    """Sends `count` requests and returns the completions by id. `kept` has those before a UserError."""

    def run(url: str, count: int = 1, budget: float | None = None, **changes: object) -> dict[str, Completion]:
        api = teacher(url, **changes)
        with Journal(tmp_path / "journal.jsonl", {"endpoint": endpoint(api)}) as journal, tqdm(disable=True) as bar:
            job = QueryJob(api, KEY, SAMPLING, True, Budget(budget, 0.0), journal, bar)
            try:
                live.complete(job, requests(count))
            finally:
                run.kept = {key: item for key, item in journal.latest.items() if item.error is None}
            return dict(journal.latest)

    return run


def body(text: str | None = "hi", finish: str = "stop", **message: object) -> str:
    value = completion({"model": "m", "messages": []})
    value["choices"][0]["message"]["content"] = text
    value["choices"][0]["finish_reason"] = finish
    value["choices"][0]["message"] |= message
    return json.dumps(value)


def test_a_completion_has_text_log_probabilities_and_usage(complete):
    with chat_server() as server:
        result = complete(server.url)["r0"]
    assert result.error is None
    assert len(result.response.split()) == 8
    assert result.logprobs == [-0.1, -0.2, -0.3, -0.4, -0.5, -0.6, -0.7, -0.8]
    assert result.usage == {"prompt_tokens": 5, "completion_tokens": 8}
    assert result.finish_reason == "stop"


def test_every_sampling_parameter_is_sent(complete):
    with chat_server() as server:
        complete(server.url)
    sent = server.bodies[0]
    assert sent == {
        "model": "m",
        "messages": [{"role": "user", "content": "question 0"}],
        "max_tokens": 17,
        "temperature": 0.3,
        "top_p": 0.9,
        "seed": 0,
        "n": 1,
        "frequency_penalty": 0.0,
        "presence_penalty": 0.0,
        "logprobs": True,
        "top_logprobs": 2,
        "stream": False,
    }
    assert server.keys == [f"Bearer {KEY}"]


def test_seeds_differ_between_requests_and_repeat_between_runs():
    assert request_seed(5, "a") == request_seed(5, "a")
    assert len({request_seed(5, "a"), request_seed(5, "b"), request_seed(6, "a")}) == 3
    assert 0 <= request_seed(5, "a") < 2**31


def test_requests_at_once_stay_within_the_concurrency(complete):
    with chat_server(delay=0.03) as server:
        results = complete(server.url, count=30, concurrency=5)
    assert sorted(results) == sorted(f"r{number}" for number in range(30))
    assert server.max_at_once == 5


@pytest.mark.parametrize("status", [429, 500, 503])
def test_a_passing_error_is_retried(complete, status):
    with chat_server(lambda number, _: Reply(status, "{}", {"Retry-After": "0.01"}) if number == 0 else None) as server:
        result = complete(server.url)["r0"]
    assert result.error is None
    assert len(server.bodies) == 2


@pytest.mark.parametrize(
    ("reply", "kind"),
    [
        (Reply(429, "{}", {"Retry-After": "0.01"}), "rate_limit"),
        (Reply(500, "{}", {"Retry-After": "0.01"}), "http_500"),
        (Reply(400, '{"error": {"message": "bad"}}'), "http_400"),
        (Reply(200, "<html>busy</html>", {"Content-Type": "text/html"}), "invalid_response"),
        (Reply(200, "<html>busy</html>"), "invalid_response"),
        (Reply(200, '{"error": {"message": "overloaded"}}'), "invalid_response"),
        (Reply(200, '{"id": "1", "choices": []}'), "invalid_response"),
        (Reply(200, body(None)), "empty"),
        (Reply(hang=1.5), "timeout"),
    ],
)
def test_a_failing_request_stops_no_other(complete, reply, kind):
    def script(_, sent):
        return reply if sent["messages"][0]["content"] == "question 1" else None

    with chat_server(script) as server:
        results = complete(server.url, count=3, max_retries=1)
    assert [results[f"r{number}"].error is None for number in range(3)] == [True, False, True]
    assert results["r1"].error["class"] == kind
    assert results["r1"].finish_reason == "error"
    assert results["r1"].response == ""


def test_a_filtered_response_is_kept_as_such(complete):
    with chat_server(lambda *_: Reply(200, body(None, "content_filter"))) as server:
        result = complete(server.url)["r0"]
    assert (result.finish_reason, result.response, result.error) == ("content_filter", "", None)


def test_reasoning_is_no_part_of_the_response(complete):
    with chat_server(lambda *_: Reply(200, body("four", reasoning_content="two and two"))) as server:
        assert complete(server.url)["r0"].response == "four"


@pytest.mark.parametrize("value", [-9999.0, None])
def test_invalid_log_probabilities_are_unknown(complete, value):
    chat = json.loads(body())
    if value is None:
        chat["choices"][0]["logprobs"] = None
    else:
        chat["choices"][0]["logprobs"]["content"][3]["logprob"] = value
    with chat_server(lambda *_: Reply(200, json.dumps(chat))) as server:
        assert complete(server.url)["r0"].logprobs is None


@pytest.mark.parametrize(
    ("reply", "words"),
    [
        (Reply(401, f'{{"error": {{"message": "wrong key {KEY}"}}}}'), ["refused the key", "TINY_KEY"]),
        (Reply(403, "{}"), ["refused the key", "TINY_KEY"]),
        (Reply(404, '{"error": {"message": "no such model"}}'), ["does not know model 'm'"]),
        (Reply(429, '{"error": {"code": "insufficient_quota"}}', {"Retry-After": "9"}), ["no quota left"]),
        (Reply(drop=True), ["cannot be reached"]),
    ],
)
def test_a_fatal_error_stops_with_one_message_without_the_key(complete, reply, words):
    with chat_server(lambda *_: reply) as server, pytest.raises(UserError) as error:
        complete(server.url, count=20, max_retries=1)
    assert all(word in str(error.value) for word in words)
    assert KEY not in str(error.value)
    assert len(server.bodies) <= 16  # twice `concurrency` tasks, two attempts each


def test_an_unreachable_endpoint_is_named(complete):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}/v1"
    with pytest.raises(UserError, match="cannot be reached"):
        complete(url, max_retries=0)


def test_an_empty_account_keeps_responses_in_flight(complete):
    def script(number, _):
        if number == 2:
            return Reply(429, '{"error": {"code": "insufficient_quota"}}')
        return Reply(200, body(), hang=0.2)

    with chat_server(script) as server, pytest.raises(UserError, match="no quota left"):
        complete(server.url, count=20)
    assert len(complete.kept) == 3
    assert len(server.bodies) == 4


def test_the_key_is_in_no_completion(complete):
    with chat_server(lambda *_: Reply(400, f'{{"error": {{"message": "key {KEY} is odd"}}}}')) as server:
        assert KEY not in repr(complete(server.url))


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_to_another_host_is_refused(complete, status):
    with (
        chat_server() as other,
        chat_server(lambda *_: Reply(status, "", {"Location": f"{other.url}/chat/completions"})) as server,
        pytest.raises(UserError, match=r"redirects .* to another host") as error,
    ):
        complete(server.url, count=5)
    assert other.bodies == []
    assert str(other.url.removesuffix("/v1")) in str(error.value)


def test_a_redirect_within_the_host_is_followed(complete):
    with chat_server(lambda number, _: Reply(307, "", {"Location": "/v2/chat"}) if number == 0 else None) as server:
        assert complete(server.url)["r0"].error is None
    assert server.bodies[0] == server.bodies[1]


def test_a_redirect_without_end_is_one_message(complete):
    with chat_server(lambda *_: Reply(308, "", {"Location": "/v1/chat"})) as server:
        with pytest.raises(UserError, match="redirects without end"):
            complete(server.url)
        assert len(server.bodies) == 6
