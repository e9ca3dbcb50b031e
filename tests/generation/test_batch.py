"""The Batch API: every answer is fetched once, whatever ends a batch or the run."""

import json
from collections import Counter

import pytest
import query_run
from batch_server import batch_server
from chat_server import chat_server
from query_run import query_teacher, response_rows, teacher

from distill.core.errors import UserError
from distill.generation.api import batch, capabilities
from distill.generation.teacher_journals import remaining_budget

PROBES = len(capabilities.SEEDS)
PRICE = {"prompt": 1.0, "completion": 10.0}
SPENT = (5 * 1.0 + 8 * 10.0) / 1e6  # USD, of an answer of the scripted server
MOST = (64 + 16 + len("question 0000") + 10 * query_run.SAMPLING.max_tokens) / 1e6  # USD, put aside for one


@pytest.fixture(autouse=True)
def at_once(monkeypatch):
    monkeypatch.setattr(batch, "FIRST_POLL_S", 0.02)


def batch_teacher(url: str, **changes: object):
    return teacher(url, **({"mode": "batch"} | changes))


def test_a_batch_gives_the_same_rows_as_asking_live(tmp_path):
    with batch_server(polls=3) as server:
        api = batch_teacher(server.url)
        rows = response_rows(api, query_teacher(tmp_path / "batch", api, 9), tmp_path, 9)
        assert len(server.live) == PROBES
        assert len(server.batches) == 1
        assert {line["url"] for line in server.lines} == {"/v1/chat/completions"}
        again = response_rows(api, query_teacher(tmp_path / "batch", api, 9), tmp_path, 9)
        assert len(server.batches) == 1
    with chat_server() as server:
        live = teacher(server.url)
        assert json.dumps(rows) == json.dumps(
            response_rows(live, query_teacher(tmp_path / "live", live, 9), tmp_path, 9)
        )
    assert again == rows


def test_an_expired_batch_keeps_its_answers_and_the_rest_is_asked_again(tmp_path):
    with batch_server(fates=[("expired", 4), ("cancelled", 3)]) as server:
        api = batch_teacher(server.url)
        rows = response_rows(api, query_teacher(tmp_path, api, 10), tmp_path, 10)
    assert all(row["error"] is None for row in rows)
    assert len(server.batches) == 3
    assert Counter(Counter(server.sent).values()) == {1: 4, 2: 3, 3: 3}


def test_a_refused_line_is_a_failure_of_its_request_alone_and_not_asked_again_at_once(tmp_path):
    with batch_server(refused={"question 0002"}) as server:
        api = batch_teacher(server.url)
        rows = response_rows(api, query_teacher(tmp_path, api, 4), tmp_path, 4)
        assert [row["error"] and row["error"]["class"] for row in rows] == [None, None, "http_400", None]
        assert len(server.batches) == 1
        server.refused.clear()
        rows = response_rows(api, query_teacher(tmp_path, api, 4), tmp_path, 4)
    assert all(row["error"] is None for row in rows)
    assert server.sent[4:] == ["question 0002"]


@pytest.mark.parametrize("moment", ["upload", "create", "poll", "download"])
def test_after_a_sigkill_at_any_step_the_batch_is_taken_up_and_paid_once(tmp_path, moment):
    with batch_server(hold=moment) as server:
        api = batch_teacher(server.url, price=PRICE)
        process = query_run.start(tmp_path, server.url, 6, mode="batch", price=PRICE)
        assert server.held.wait(200)
        process.kill()
        process.join()
        spent = remaining_budget(1.0, [api], tmp_path).spent
        assert spent == pytest.approx(PROBES * SPENT + 6 * MOST)  # as long as nobody knows better
        rows = response_rows(api, query_teacher(tmp_path, api, 6, budget=spent), tmp_path, 6)
    assert all(row["error"] is None for row in rows)
    assert len(server.batches) == 1
    assert set(Counter(server.sent).values()) == {1}
    assert len(server.live) == PROBES
    assert remaining_budget(1.0, [api], tmp_path).spent == pytest.approx((PROBES + 6) * SPENT)


def test_a_budget_holds_for_batches_and_a_larger_one_completes_them(tmp_path):
    with batch_server() as server:
        api = batch_teacher(server.url, price=PRICE)
        limit = PROBES * SPENT + 4.5 * MOST
        with pytest.raises(UserError, match="the budget is used up"):
            query_teacher(tmp_path, api, 30, budget=limit)
        spent = remaining_budget(limit, [api], tmp_path).spent
        assert limit - MOST < spent <= limit
        assert set(Counter(server.sent).values()) == {1}
        result = query_teacher(tmp_path, api, 30, budget=1.0)
    assert set(Counter(server.sent).values()) == {1}
    assert all(row["error"] is None for row in response_rows(api, result, tmp_path, 30))


def test_a_batch_that_is_refused_as_a_whole_stops_with_the_servers_reason(tmp_path):
    with batch_server(fates=[("failed", 0)]) as server:
        api = batch_teacher(server.url)
        with pytest.raises(UserError, match="ended as 'failed' without a response: the model is not known"):
            query_teacher(tmp_path, api, 3)
        assert len(server.batches) == 1
        query_teacher(tmp_path, api, 3)
    assert len(server.batches) == 2
