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
def ask(tmp_path):
    """Asks `count` questions and gives the answers by id, those before a UserError in `kept`."""

    def asking(url: str, count: int = 1, budget: float | None = None, **changes: object) -> dict[str, Completion]:
        asked = teacher(url, **changes)
        with Journal(tmp_path / "journal.jsonl", {"endpoint": endpoint(asked)}) as journal, tqdm(disable=True) as bar:
            job = QueryJob(asked, KEY, SAMPLING, True, Budget(budget, 0.0), journal, bar)
            try:
                live.complete(job, requests(count))
            finally:
                asking.kept = {key: answer for key, answer in journal.latest.items() if answer.error is None}
            return dict(journal.latest)

    return asking


def body(text: str | None = "hi", finish: str = "stop", **message: object) -> str:
    value = completion({"model": "m", "messages": []})
    value["choices"][0]["message"]["content"] = text
    value["choices"][0]["finish_reason"] = finish
    value["choices"][0]["message"] |= message
    return json.dumps(value)


def test_an_answer_carries_text_log_probabilities_and_usage(ask):
    with chat_server() as server:
        answer = ask(server.url)["r0"]
    assert answer.error is None
    assert len(answer.response.split()) == 8
    assert answer.logprobs == [-0.1, -0.2, -0.3, -0.4, -0.5, -0.6, -0.7, -0.8]
    assert answer.usage == {"prompt_tokens": 5, "completion_tokens": 8}
    assert answer.finish_reason == "stop"


def test_every_sampling_parameter_is_sent(ask):
    with chat_server() as server:
        ask(server.url)
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


def test_all_requests_are_answered_with_no_more_at_once_than_allowed(ask):
    with chat_server(delay=0.03) as server:
        answers = ask(server.url, count=30, concurrency=5)
    assert sorted(answers) == sorted(f"r{number}" for number in range(30))
    assert server.most_at_once == 5


@pytest.mark.parametrize("status", [429, 500, 503])
def test_what_passes_is_tried_again(ask, status):
    with chat_server(lambda number, _: Reply(status, "{}", {"Retry-After": "0.01"}) if number == 0 else None) as server:
        answer = ask(server.url)["r0"]
    assert answer.error is None
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
def test_a_request_that_keeps_failing_is_an_answer_with_its_reason_and_stops_no_other(ask, reply, kind):
    def script(_, sent):
        return reply if sent["messages"][0]["content"] == "question 1" else None

    with chat_server(script) as server:
        answers = ask(server.url, count=3, max_retries=1)
    assert [answers[f"r{number}"].error is None for number in range(3)] == [True, False, True]
    assert answers["r1"].error["class"] == kind
    assert answers["r1"].finish_reason == "error"
    assert answers["r1"].response == ""


def test_a_filtered_answer_is_kept_as_such(ask):
    with chat_server(lambda *_: Reply(200, body(None, "content_filter"))) as server:
        answer = ask(server.url)["r0"]
    assert (answer.finish_reason, answer.response, answer.error) == ("content_filter", "", None)


def test_reasoning_is_not_taken_for_the_answer(ask):
    with chat_server(lambda *_: Reply(200, body("four", reasoning_content="two and two"))) as server:
        assert ask(server.url)["r0"].response == "four"


@pytest.mark.parametrize("value", [-9999.0, None])
def test_log_probabilities_that_are_none_are_not_known(ask, value):
    answer = json.loads(body())
    if value is None:
        answer["choices"][0]["logprobs"] = None
    else:
        answer["choices"][0]["logprobs"]["content"][3]["logprob"] = value
    with chat_server(lambda *_: Reply(200, json.dumps(answer))) as server:
        assert ask(server.url)["r0"].logprobs is None


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
def test_what_no_retry_mends_stops_with_one_message_without_the_key(ask, reply, words):
    with chat_server(lambda *_: reply) as server, pytest.raises(UserError) as error:
        ask(server.url, count=20, max_retries=1)
    assert all(word in str(error.value) for word in words)
    assert KEY not in str(error.value)
    assert len(server.bodies) <= 16  # twice `concurrency` tasks, two attempts each


def test_an_endpoint_that_is_not_there_is_named(ask):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}/v1"
    with pytest.raises(UserError, match="cannot be reached"):
        ask(url, max_retries=0)


def test_answers_on_their_way_are_kept_and_nothing_more_is_sent_when_the_account_runs_dry(ask):
    def script(number, _):
        if number == 2:
            return Reply(429, '{"error": {"code": "insufficient_quota"}}')
        return Reply(200, body(), hang=0.2)

    with chat_server(script) as server, pytest.raises(UserError, match="no quota left"):
        ask(server.url, count=20)
    assert len(ask.kept) == 3
    assert len(server.bodies) == 4


def test_the_key_is_in_no_answer(ask):
    with chat_server(lambda *_: Reply(400, f'{{"error": {{"message": "key {KEY} is odd"}}}}')) as server:
        assert KEY not in repr(ask(server.url))
