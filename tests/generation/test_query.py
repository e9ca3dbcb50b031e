"""Asking that costs money: killed, refused, delayed, out of budget. What was paid is kept, and paid once."""

import json
import random
import time
from collections import Counter
from pathlib import Path

import asking_run
import pytest
from asking_run import ask, output, requests, setup, teacher
from chat_server import Reply, chat_server, completion

from distill.core.errors import UserError
from distill.generation import query
from distill.generation.api import capabilities
from distill.generation.journal import Journal
from distill.modeling.sampling import Sampling
from tools.bench.load_server import load_server

PROBES = len(capabilities.SEEDS)


def questions(bodies: list[dict]) -> Counter[str]:
    """How often each prompt was sent; the probe's are left out."""
    sent = (body["messages"][0]["content"] for body in bodies)
    return Counter(text for text in sent if text.startswith("question"))


def wait_for(condition, seconds: float = 120) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it never came to pass"
        time.sleep(0.002)


def test_killed_at_20_random_moments_it_ends_with_the_same_bytes_and_sends_nothing_twice_that_was_answered(tmp_path):
    count, kills, chance = 240, 20, random.Random(1)
    with chat_server(delay=0.01) as server:
        asked = teacher(server.url)
        whole = output(asked, ask(tmp_path / "whole", asked, count), tmp_path, count)
        server.bodies.clear()
        how = setup(tmp_path / "killed", asked)
        names = {item.id: item.messages[0]["content"] for item in requests(asked, how, count)}
        known: set[str] = set()
        for _ in range(kills):
            before = len(server.bodies)
            process = asking_run.start(tmp_path / "killed", server.url, count)
            after = chance.randrange(1, 16)
            wait_for(lambda before=before, after=after: len(server.bodies) >= before + after)
            time.sleep(chance.random() * 0.01)
            process.kill()
            process.join()
            assert not known & set(questions(server.bodies[before:]))
            with query.journal(asked, tmp_path / "killed") as journal:
                known = {names[key] for key in journal.answered if key in names}
        before = len(server.bodies)
        assert 40 < len(known) < count
        resumed = output(asked, ask(tmp_path / "killed", asked, count), tmp_path, count)
        assert not known & set(questions(server.bodies[before:]))
    assert json.dumps(resumed) == json.dumps(whole)
    sent = questions(server.bodies)
    assert len(sent) == count
    # only what was under way at a kill, answered or not, is sent anew
    assert sum(sent.values()) <= count + kills * asked.concurrency


FAULTS = ("--share-429", "0.10", "--share-500", "0.05", "--share-timeout", "0.02", "--share-garbage", "0.01")


def seconds_of_1000(folder: Path, *faults: str) -> tuple[float, Counter[str]]:
    """What 1,000 requests take, and their failures by class; time-outs are six times the server's usual 150 ms."""
    with load_server("--delay-ms", "150", *faults) as url:
        asked = teacher(url, concurrency=15, timeout_s=0.9, max_retries=5)
        ask(folder, asked, 1)  # with the probe
        start = time.monotonic()
        found = ask(folder, asked, 1000)
        taken = time.monotonic() - start
    rows = output(asked, found, folder, 1000)
    assert len(rows) == 1000
    return taken, Counter(row["error"]["class"] for row in rows if row["error"])


@pytest.mark.slow
@pytest.mark.timed
def test_of_1000_requests_at_a_faulty_server_all_end_and_at_70_percent_of_the_pace(tmp_path):
    """A second pair of runs is made only where the first was disturbed by what else the machine does."""
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
SPENT = (5 * 1.0 + 8 * 10.0) / 1e6  # USD, of an answer of the scripted server


def test_a_budget_for_half_the_prompts_is_kept_and_a_larger_one_completes_them(tmp_path):
    count = 60
    with chat_server(delay=0.005) as server:
        asked = teacher(server.url, price=PRICE)
        half = (count / 2 + PROBES) * SPENT
        with pytest.raises(UserError, match="the budget is used up") as error:
            ask(tmp_path, asked, count, budget=half)
        assert "raise generate.budget_usd and run again" in str(error.value)
        first = len(server.bodies)
        assert first * SPENT <= half
        assert first >= 20
        with pytest.raises(UserError, match="the budget is used up"):
            ask(tmp_path, asked, count, budget=half)
        assert first <= len(server.bodies) <= half / SPENT
        found = ask(tmp_path, asked, count, budget=1.0)
        assert set(questions(server.bodies).values()) == {1}
        assert len(server.bodies) == count + PROBES
    assert all(row["error"] is None for row in output(asked, found, tmp_path, count))
    assert query.budget(1.0, [asked], tmp_path).spent == pytest.approx((count + PROBES) * SPENT)


def test_what_may_have_been_billed_unseen_counts_as_spent_in_full(tmp_path):
    def script(_, body):
        return Reply(hang=1.5) if body["messages"][0]["content"] == "question 0000" else None

    with chat_server(script) as server:
        asked = teacher(server.url, price=PRICE, timeout_s=0.5, max_retries=1)
        found = ask(tmp_path, asked, 1)
    assert next(iter(found.answers.values())).error is None
    lost = 2 * (64 + 16 + len("question 0000") + 10 * asking_run.SAMPLING.max_tokens) / 1e6
    assert query.budget(None, [asked], tmp_path).spent == pytest.approx(PROBES * SPENT + lost)


def test_answers_to_other_params_stay_in_the_journal_and_are_there_when_params_go_back(tmp_path):
    with chat_server() as server:
        asked = teacher(server.url)
        how = setup(tmp_path, asked)
        hot = Sampling(16, 1.5, 0.9, 5)
        for sampling, total in ((asking_run.SAMPLING, 3), (hot, 6), (asking_run.SAMPLING, 6)):
            prompts = asking_run.prompts(3)
            items = [query.request(asked, sampling, how, item["id"], item["messages"]) for item in prompts]
            found = query.ask(asked, items, sampling, how)
            assert len(server.bodies) == total + PROBES
            assert all(found[item.id].error is None for item in items)
    assert len(list(tmp_path.glob("*.jsonl"))) == 1


def test_a_failure_is_a_line_with_class_code_and_attempts_and_is_asked_again(tmp_path):
    broken = [True]

    def script(_, body):
        refused = broken[0] and body["messages"][0]["content"] == "question 0001"
        return Reply(500, '{"error": {"code": "E7"}}', {"retry-after-ms": "5"}) if refused else None

    with chat_server(script) as server:
        asked = teacher(server.url)
        found = ask(tmp_path, asked, 3)
        errors = [row["error"] for row in output(asked, found, tmp_path, 3)]
        assert [error and error["class"] for error in errors] == [None, "http_500", None]
        (line,) = [answer.error for answer in found.answers.values() if answer.error]
        assert (line["class"], line["code"], line["attempts"]) == ("http_500", "E7", 3)
        broken[0] = False
        ask(tmp_path, asked, 3)
    assert questions(server.bodies) == {"question 0000": 1, "question 0001": 4, "question 0002": 1}


def test_rows_are_the_same_bytes_whatever_the_order_of_arrival(tmp_path):
    def shuffled(number, body):
        return Reply(body=json.dumps(completion(body)), hang=0.03 * (number % 3))

    written = []
    for name, script in (("a", lambda *_: None), ("b", shuffled)):
        with chat_server(script) as server:
            asked = teacher(server.url)
            written.append(json.dumps(output(asked, ask(tmp_path / name, asked, 12), tmp_path, 12)))
    assert written[0] == written[1]


def test_a_journal_in_use_stops_a_second_run_before_it_sends(tmp_path):
    with chat_server() as server:
        asked = teacher(server.url)
        where = {"teacher": asked.name, "endpoint": asked.base_url}
        how = setup(tmp_path, asked)
        with (
            Journal(query.journal_path(asked, tmp_path), where),
            pytest.raises(UserError, match="in use by another run"),
        ):
            query.ask(asked, requests(asked, how, 1), asking_run.SAMPLING, how)
    assert server.bodies == []
