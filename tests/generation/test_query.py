"""Queries that cost money: killed, refused, delayed, out of budget. Each response is kept and paid once."""

import json
import os
import random
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
import query_run
from chat_server import Reply, chat_server, completion
from query_run import query_context, query_teacher, requests, response_rows, teacher

from distill.core.errors import UserError
from distill.generation.api import capabilities
from distill.generation.journal import Journal
from distill.generation.query import query
from distill.generation.requests import build_request
from distill.generation.teacher_journals import journal_path, open_journal, remaining_budget
from distill.modeling.sampling import Sampling
from tools.bench.load_server import load_server

PROBES = len(capabilities.SEEDS)


def count_prompts(bodies: list[dict]) -> Counter[str]:
    """The number of times each prompt was sent, without the probe."""
    sent = (body["messages"][0]["content"] for body in bodies)
    return Counter(text for text in sent if text.startswith("question"))


def wait_for(condition, seconds: float = 120) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "the condition never became true"
        time.sleep(0.002)


def test_20_kills_change_no_byte_and_pay_nothing_twice(tmp_path):
    count, kills, chance = 240, 20, random.Random(1)
    with chat_server(delay=0.01) as server:
        api = teacher(server.url)
        uninterrupted = response_rows(api, query_teacher(tmp_path / "uninterrupted", api, count), tmp_path, count)
        server.bodies.clear()
        context = query_context(tmp_path / "killed", api)
        names = {item.id: item.messages[0]["content"] for item in requests(api, context, count)}
        known: set[str] = set()
        for _ in range(kills):
            before = len(server.bodies)
            process = query_run.start(tmp_path / "killed", server.url, count)
            after = chance.randrange(1, 16)
            wait_for(lambda before=before, after=after: len(server.bodies) >= before + after)
            time.sleep(chance.random() * 0.01)
            process.kill()
            process.join()
            assert not known & set(count_prompts(server.bodies[before:]))
            with open_journal(api, tmp_path / "killed") as journal:
                known = {names[key] for key in journal.completed if key in names}
        before = len(server.bodies)
        assert 40 < len(known) < count
        resumed = response_rows(api, query_teacher(tmp_path / "killed", api, count), tmp_path, count)
        assert not known & set(count_prompts(server.bodies[before:]))
    assert json.dumps(resumed) == json.dumps(uninterrupted)
    sent = count_prompts(server.bodies)
    assert len(sent) == count
    # only requests in flight at a kill, completed or not, are sent again
    assert sum(sent.values()) <= count + kills * api.concurrency


FAULTS = ("--share-429", "0.10", "--share-500", "0.05", "--share-timeout", "0.02", "--share-garbage", "0.01")


def seconds_of_1000(folder: Path, *faults: str) -> tuple[float, Counter[str]]:
    """Seconds of 1,000 requests, and failures by class. The time-out is six times the usual delay of 150 ms."""
    with load_server("--delay-ms", "150", *faults) as url:
        api = teacher(url, concurrency=15, timeout_s=0.9, max_retries=5)
        query_teacher(folder, api, 1)  # with the probe
        start = time.monotonic()
        result = query_teacher(folder, api, 1000)
        taken = time.monotonic() - start
    rows = response_rows(api, result, folder, 1000)
    assert len(rows) == 1000
    return taken, Counter(row["error"]["class"] for row in rows if row["error"])


@pytest.mark.slow
@pytest.mark.timed
def test_1000_requests_to_a_faulty_server_keep_70_percent_of_the_pace(tmp_path):
    """A second pair of runs is made only if other work on the machine disturbed the first."""
    paces = []
    while len(paces) < 2 and max(paces, default=0.0) < 0.7:
        faultless, failed = seconds_of_1000(tmp_path / f"faultless {len(paces)}")
        assert not failed
        faulty, failed = seconds_of_1000(tmp_path / f"faulty {len(paces)}", *FAULTS)
        assert failed["invalid_response"]
        assert failed.total() <= 30
        assert set(failed) <= {"invalid_response", "timeout", "rate_limit", "http_500"}
        paces.append(faultless / faulty)
    assert max(paces) >= 0.7, paces


PRICE = {"prompt": 1.0, "completion": 10.0}
SPENT = (5 * 1.0 + 8 * 10.0) / 1e6  # USD, of a response of the scripted server


def test_a_budget_is_kept_and_a_larger_one_completes_the_run(tmp_path):
    count = 60
    with chat_server(delay=0.005) as server:
        api = teacher(server.url, price=PRICE)
        half = (count / 2 + PROBES) * SPENT
        with pytest.raises(UserError, match="the budget is used up") as error:
            query_teacher(tmp_path, api, count, budget=half)
        assert "Raise generate.budget_usd and run again" in str(error.value)
        first = len(server.bodies)
        assert first * SPENT <= half
        assert first >= 20
        with pytest.raises(UserError, match="the budget is used up"):
            query_teacher(tmp_path, api, count, budget=half)
        assert first <= len(server.bodies) <= half / SPENT
        result = query_teacher(tmp_path, api, count, budget=1.0)
        assert set(count_prompts(server.bodies).values()) == {1}
        assert len(server.bodies) == count + PROBES
    assert all(row["error"] is None for row in response_rows(api, result, tmp_path, count))
    assert remaining_budget(1.0, [api], tmp_path).spent == pytest.approx((count + PROBES) * SPENT)


def test_attempts_without_a_reply_count_in_full(tmp_path):
    def script(_, body):
        return Reply(hang=1.5) if body["messages"][0]["content"] == "question 0000" else None

    with chat_server(script) as server:
        api = teacher(server.url, price=PRICE, timeout_s=0.5, max_retries=1)
        result = query_teacher(tmp_path, api, 1)
    assert next(iter(result.completions.values())).error is None
    lost = 2 * (64 + 16 + len("question 0000") + 10 * query_run.SAMPLING.max_tokens) / 1e6
    assert remaining_budget(None, [api], tmp_path).spent == pytest.approx(PROBES * SPENT + lost)


def test_the_journal_keeps_completions_of_other_params(tmp_path):
    with chat_server() as server:
        api = teacher(server.url)
        context = query_context(tmp_path, api)
        hot = Sampling(16, 1.5, 0.9, 5)
        for sampling, total in ((query_run.SAMPLING, 3), (hot, 6), (query_run.SAMPLING, 6)):
            prompts = query_run.prompts(3)
            items = [build_request(api, sampling, context, item["id"], item["messages"]) for item in prompts]
            result = query(api, items, sampling, context)
            assert len(server.bodies) == total + PROBES
            assert all(result[item.id].error is None for item in items)
    assert len(list(tmp_path.glob("*.jsonl"))) == 1


def test_a_failure_has_class_code_and_attempts_and_is_retried(tmp_path):
    broken = [True]

    def script(_, body):
        refused = broken[0] and body["messages"][0]["content"] == "question 0001"
        return Reply(500, '{"error": {"code": "E7"}}', {"retry-after-ms": "5"}) if refused else None

    with chat_server(script) as server:
        api = teacher(server.url)
        result = query_teacher(tmp_path, api, 3)
        errors = [row["error"] for row in response_rows(api, result, tmp_path, 3)]
        assert [error and error["class"] for error in errors] == [None, "http_500", None]
        (line,) = [answer.error for answer in result.completions.values() if answer.error]
        assert (line["class"], line["code"], line["attempts"]) == ("http_500", "E7", 3)
        broken[0] = False
        query_teacher(tmp_path, api, 3)
    assert count_prompts(server.bodies) == {"question 0000": 1, "question 0001": 4, "question 0002": 1}


def test_rows_do_not_depend_on_the_order_of_arrival(tmp_path):
    def shuffled(number, body):
        return Reply(body=json.dumps(completion(body)), hang=0.03 * (number % 3))

    written = []
    for name, script in (("a", lambda *_: None), ("b", shuffled)):
        with chat_server(script) as server:
            api = teacher(server.url)
            written.append(json.dumps(response_rows(api, query_teacher(tmp_path / name, api, 12), tmp_path, 12)))
    assert written[0] == written[1]


def test_a_journal_in_use_stops_a_second_run(tmp_path):
    with chat_server() as server:
        api = teacher(server.url)
        where = {"teacher": api.name, "endpoint": api.base_url}
        context = query_context(tmp_path, api)
        with (
            Journal(journal_path(api, tmp_path), where),
            pytest.raises(UserError, match="in use by another run"),
        ):
            query(api, requests(api, context, 1), query_run.SAMPLING, context)
    assert server.bodies == []


@pytest.mark.parametrize("key", ["k\n", "\rk", "k k", "\tk", "k\x00", "k\u00e9", "k" * 5000])
def test_a_key_that_no_header_takes_is_refused_unseen(tmp_path, key):
    with chat_server() as server:
        context = replace(query_context(tmp_path, teacher(server.url)), environment={"TINY_KEY": key * 3})
        with pytest.raises(UserError, match="TINY_KEY must hold the key") as error:
            query(teacher(server.url), requests(teacher(server.url), context, 1), query_run.SAMPLING, context)
    assert key.strip() * 3 not in str(error.value)
    assert str(error.value).isprintable()
    assert server.bodies == []


@pytest.mark.parametrize(
    ("variable", "proxy", "words"),
    [
        ("all_proxy", "socks5://127.0.0.1:9", "through the proxy in ALL_PROXY: a SOCKS proxy needs the package"),
        ("http_proxy", "http://user:secret@127.0.0.1:9", "through the proxy in HTTP_PROXY, which may be wrong"),
        ("http_proxy", "what://user:secret@127.0.0.1:9", "through the proxy in HTTP_PROXY"),
    ],
)
def test_a_proxy_that_cannot_be_used_is_named(tmp_path, monkeypatch, variable, proxy, words):
    for name in ("all_proxy", "http_proxy", "no_proxy"):
        monkeypatch.setenv(name, proxy if name == variable else "")
    with chat_server() as server:
        api = teacher(server.url, max_retries=0)

        def send() -> None:
            context = replace(query_context(tmp_path, api), environment=os.environ | {"TINY_KEY": query_run.KEY})
            query(api, requests(api, context, 1), query_run.SAMPLING, context)

        with pytest.raises(UserError, match=words) as error:
            send()
        assert "secret" not in str(error.value)
        assert server.bodies == []
        monkeypatch.setenv("no_proxy", "127.0.0.1")
        send()
    assert len(server.bodies) == PROBES + 1
