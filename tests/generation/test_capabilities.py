"""Missing capabilities of an API are found before they cost money, and refused or marked in the rows."""

import json
from dataclasses import replace

import pytest
from chat_server import Reply, chat_server, completion
from query_run import query_teacher, response_rows, teacher

from distill.core.errors import UserError
from distill.generation.api import capabilities
from distill.generation.completions import Completion

PROBES = len(capabilities.SEEDS)


def completions(hot: str = "a", again: str = "a", otherwise: str = "b", cold: str = "c", last: str = "c") -> dict:
    usage = {"prompt_tokens": 1, "completion_tokens": 1}
    texts = dict(zip(capabilities.SEEDS, (hot, again, otherwise, cold, last), strict=True))
    return {name: Completion(name, text, "stop", [-1.0], usage, None, margins=[0.5]) for name, text in texts.items()}


def without(**parts: object) -> dict:
    return {name: replace(item, **parts) for name, item in completions().items()}


@pytest.mark.parametrize(
    ("responses", "missing"),
    [
        (completions(), []),
        (completions(again="x"), ["no_seed"]),  # another response to the same seed
        (completions(otherwise="a"), ["no_seed"]),  # the same to another
        (completions("c", "c", "c"), ["no_seed", "no_temperature"]),  # always greedy
        (completions("a", "b", "d", "e", "f"), ["no_seed", "no_temperature"]),  # always sampled
        (without(logprobs=None, margins=None), ["no_logprobs"]),
        (without(logprobs=None), ["no_logprobs"]),  # of the best tokens, not of the chosen
        (without(usage=None), ["no_usage"]),
    ],
)
def test_five_responses_show_the_missing_capabilities(responses, missing):
    assert capabilities.missing(capabilities.capabilities_from(responses)) == missing


def without_log_probs(_, body):
    """A server that silently drops log-probabilities."""
    value = completion(body)
    value["choices"][0]["logprobs"] = None
    return Reply(body=json.dumps(value))


def test_a_missing_capability_is_refused_before_any_prompt_is_sent(tmp_path):
    with chat_server(without_log_probs) as server:
        with pytest.raises(UserError, match="returns no log-probability for each chosen token") as error:
            query_teacher(tmp_path, teacher(server.url), 5)
        assert "on_missing: degrade" in str(error.value)
        assert len(server.bodies) == PROBES
        result = query_teacher(tmp_path, teacher(server.url), 5, required=("seed", "temperature"))
        assert result.missing_capabilities == []
        assert len(server.bodies) == PROBES + 5  # what was result out is remembered


def test_degraded_rows_say_so_and_none_is_dropped(tmp_path):
    with chat_server(without_log_probs) as server:
        api = teacher(server.url, on_missing="degrade")
        result = query_teacher(tmp_path, api, 5)
        rows = response_rows(api, result, tmp_path, 5)
        assert [row["degraded"] for row in rows] == [["no_logprobs"]] * 5
        assert all(row["error"] is None and row["response"] for row in rows)
        assert result.probe["logprobs"] is False
        assert (result.probe["prompt_tokens"], result.probe["completion_tokens"]) == (5 * PROBES, 8 * PROBES)
        again = query_teacher(tmp_path, api, 5)
        assert len(server.bodies) == PROBES + 5
    assert (again.probe, again.missing_capabilities) == (result.probe, result.missing_capabilities)


def test_a_server_may_refuse_requests_for_log_probabilities(tmp_path):
    def script(_, body):
        return (
            Reply(400, '{"error": {"message": "logprobs: unknown"}}')
            if "logprobs" in body
            else without_log_probs(_, body)
        )

    with chat_server(script) as server:
        api = teacher(server.url, on_missing="degrade")
        result = query_teacher(tmp_path, api, 3)
    assert all(row["error"] is None for row in response_rows(api, result, tmp_path, 3))
    assert "logprobs" not in server.bodies[-1]
    assert result.probe["accepts_logprobs"] is False


def test_an_interrupted_probe_resumes(tmp_path):
    def script(number, _):
        return Reply(401, "{}") if number == 3 else None

    with chat_server(script) as server:
        api = teacher(server.url, concurrency=1)
        with pytest.raises(UserError, match="refused the key"):
            query_teacher(tmp_path, api, 2)
        query_teacher(tmp_path, api, 2)
    assert len(server.bodies) == PROBES + 1 + 2


def test_a_chance_failure_of_the_probe_is_retried(tmp_path):
    with chat_server(lambda number, _: Reply(200, "<html>") if number == 1 else None) as server:
        query_teacher(tmp_path, teacher(server.url), 1)
    assert len(server.bodies) == PROBES + 1 + 1
