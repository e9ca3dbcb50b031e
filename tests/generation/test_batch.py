"""The Batch API: every response is fetched once, whatever ends a batch or the run."""

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
SPENT = (5 * 1.0 + 8 * 10.0) / 1e6  # USD, of a response of the scripted server
MAX_COST = (64 + 16 + len("question 0000") + 10 * query_run.SAMPLING.max_tokens) / 1e6  # USD, reserved for a request


@pytest.fixture(autouse=True)
def poll_often(monkeypatch):
    monkeypatch.setattr(batch, "FIRST_POLL_S", 0.02)


def batch_teacher(url: str, **changes: object):
    return teacher(url, **({"mode": "batch"} | changes))


def test_a_batch_gives_the_same_rows_as_live_queries(tmp_path):
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


def test_an_expired_batch_is_completed_by_another(tmp_path):
    with batch_server(fates=[("expired", 4), ("cancelled", 3)]) as server:
        api = batch_teacher(server.url)
        rows = response_rows(api, query_teacher(tmp_path, api, 10), tmp_path, 10)
    assert all(row["error"] is None for row in rows)
    assert len(server.batches) == 3
    assert Counter(Counter(server.sent).values()) == {1: 4, 2: 3, 3: 3}


def test_a_refused_line_fails_until_the_next_run(tmp_path):
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
def test_a_killed_batch_is_resumed_and_paid_once(tmp_path, moment):
    with batch_server(hold=moment) as server:
        api = batch_teacher(server.url, price=PRICE)
        process = query_run.start(tmp_path, server.url, 6, mode="batch", price=PRICE)
        assert server.held.wait(200)
        process.kill()
        process.join()
        spent = remaining_budget(1.0, [api], tmp_path).spent
        assert spent == pytest.approx(PROBES * SPENT + 6 * MAX_COST)  # until the batch reports less
        rows = response_rows(api, query_teacher(tmp_path, api, 6, budget=spent), tmp_path, 6)
    assert all(row["error"] is None for row in rows)
    assert len(server.batches) == 1
    assert set(Counter(server.sent).values()) == {1}
    assert len(server.live) == PROBES
    assert remaining_budget(1.0, [api], tmp_path).spent == pytest.approx((PROBES + 6) * SPENT)


def test_a_budget_holds_for_batches(tmp_path):
    with batch_server() as server:
        api = batch_teacher(server.url, price=PRICE)
        limit = PROBES * SPENT + 4.5 * MAX_COST
        with pytest.raises(UserError, match="the budget is used up"):
            query_teacher(tmp_path, api, 30, budget=limit)
        spent = remaining_budget(limit, [api], tmp_path).spent
        assert limit - MAX_COST < spent <= limit
        assert set(Counter(server.sent).values()) == {1}
        result = query_teacher(tmp_path, api, 30, budget=1.0)
    assert set(Counter(server.sent).values()) == {1}
    assert all(row["error"] is None for row in response_rows(api, result, tmp_path, 30))


def test_a_failed_batch_stops_with_the_servers_reason(tmp_path):
    with batch_server(fates=[("failed", 0)]) as server:
        api = batch_teacher(server.url)
        with pytest.raises(UserError, match="ended as 'failed' without a response: the model is not known"):
            query_teacher(tmp_path, api, 3)
        assert len(server.batches) == 1
        query_teacher(tmp_path, api, 3)
    assert len(server.batches) == 2
