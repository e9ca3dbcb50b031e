from dataclasses import replace
from pathlib import Path

import pytest
import tiny
from chat_server import api_teacher

from distill.core.home import home
from distill.generation.budget import Budget
from distill.generation.completions import Answer, Request, failed
from distill.generation.query import Setup, request
from distill.params.generate import Generate
from distill.params.schema import Runtime
from distill.params.teachers import ApiTeacher, LocalTeacher, Teacher
from stages import generate

PROMPT = {"id": "ants/what", "topic": "ants", "messages": [{"role": "user", "content": "What are ants?"}]}
GENERATE = Generate(**tiny.params()["generate"])


def teachers(*shares: float) -> list[LocalTeacher]:
    base = tiny.params()["teachers"][0]
    return [
        LocalTeacher(**(base | {"name": f"t{number}", "prompt_fraction": share})) for number, share in enumerate(shares)
    ]


def many(count: int = 1000) -> list[dict]:
    return [PROMPT | {"id": f"p{number}"} for number in range(count)]


def test_teachers_with_a_full_share_answer_every_prompt():
    parts = generate.divide(many(10), teachers(1.0, 1.0), seed=1)
    assert parts == {"t0": many(10), "t1": many(10)}


def test_parts_divide_the_prompts_without_overlap_and_in_proportion():
    parts = generate.divide(many(), teachers(0.25, 0.75), seed=1)
    ids = [{row["id"] for row in parts[name]} for name in ("t0", "t1")]
    assert not ids[0] & ids[1]
    assert len(ids[0] | ids[1]) == 1000
    assert 200 < len(ids[0]) < 300


def test_a_prompt_keeps_its_teacher_when_prompts_are_added():
    few = {row["id"] for row in generate.divide(many(100), teachers(0.5, 0.5), seed=1)["t0"]}
    more = {row["id"] for row in generate.divide(many(200), teachers(0.5, 0.5), seed=1)["t0"]}
    assert few == {name for name in more if int(name[1:]) < 100}


def asked(teacher: Teacher | None = None, **changes: object) -> Request:
    """A request with some part of it changed: of the teacher, of params, of the prompt."""
    values = {"prompt_id": "ants/what", "messages": PROMPT["messages"], "sample": 0, "seed": 1} | changes
    seed, prompt_id, messages, sample = (values.pop(key) for key in ("seed", "prompt_id", "messages", "sample"))
    runtime = {"threads": 1, "dtype": "float32"}
    for name in ("threads", "dtype"):
        runtime |= {name: values.pop(name)} if name in values else {}
    params = GENERATE.model_copy(update=values)
    setup = Setup(Runtime(**runtime), params.batch_size, {}, Path(), (), Budget(None, 0.0))
    how = generate.sampling(params, seed)
    return request(teacher or teachers(1.0)[0], how, setup, prompt_id, messages, sample)


@pytest.mark.parametrize(
    "change",
    [
        {"max_tokens": 5}, {"sampling_temperature": 0.2}, {"top_p": 0.5}, {"batch_size": 3}, {"seed": 2},
        {"dtype": "bfloat16"}, {"sample": 1}, {"prompt_id": "ants/other"},
        {"messages": [{"role": "user", "content": "What are ants??"}]},
    ],
)  # fmt: skip
def test_a_request_is_another_one_where_anything_differs_that_its_answer_depends_on(change):
    assert asked(**change).id != asked().id


def test_a_request_is_the_same_one_whatever_the_threads_and_has_its_own_seed():
    assert asked(threads=2) == asked()
    assert asked(sampling_temperature=0.2).seed == asked().seed
    assert len({asked(**change).seed for change in ({}, {"seed": 2}, {"sample": 1}, {"prompt_id": "b"})}) == 4


def an_api(**changes: object) -> ApiTeacher:
    return ApiTeacher(**api_teacher("http://host/v1", **changes))


@pytest.mark.parametrize(
    "change", [{"base_url": "http://other/v1"}, {"model": "n"}, {"extra_body": {"min_p": 0.1}}, {"name": "twin"}]
)
def test_a_request_to_another_endpoint_model_or_teacher_is_another_one(change):
    assert asked(an_api(**change)).id != asked(an_api()).id


@pytest.mark.parametrize(
    "change",
    [
        {"api_key_env": "OTHER"}, {"timeout_s": 1.0}, {"max_retries": 9}, {"concurrency": 9}, {"mode": "batch"},
        {"price": {"prompt": 1.0, "completion": 2.0}}, {"requests_per_minute": 3}, {"on_missing": "degrade"},
    ],
)  # fmt: skip
def test_a_request_is_the_same_one_whatever_the_key_the_price_and_the_pace(change):
    assert asked(an_api(**change)) == asked(an_api())


USAGE = {"prompt_tokens": 3, "completion_tokens": 2}
GOOD = Answer("r", " hi ", "stop", [-1.0], USAGE, None)
BAD = failed(Request("r", [], 1), "timeout", "late", attempts=3)


def test_a_row_names_its_sample_and_what_its_teacher_lacks():
    first, second = generate.row(PROMPT, "a", 0, GOOD, []), generate.row(PROMPT, "a", 2, GOOD, ["no_temperature"])
    assert (first["id"], first["sample"], first["response"]) == ("ants/what@a", 0, "hi")
    assert (second["id"], second["sample"], second["degraded"]) == ("ants/what@a/2", 2, ["no_temperature"])
    unscored = replace(GOOD, logprobs=None)
    assert generate.row(PROMPT, "a", 0, unscored, [])["degraded"] == ["no_logprobs"]
    assert generate.row(PROMPT, "a", 0, unscored, ["no_logprobs"])["degraded"] == ["no_logprobs"]


def test_a_failed_row_says_why_but_not_how_often_it_was_tried():
    failure = generate.row(PROMPT, "a", 0, BAD, [])
    assert failure["error"] == {"class": "timeout", "message": "late"}
    assert failure["degraded"] == []


def test_the_summary_counts_requests_failures_tokens_and_cost_by_teacher():
    api, local = an_api(price={"prompt": 1.0, "completion": 10.0}), teachers(1.0)[0]
    rows = [generate.row(PROMPT, "api", number, answer, []) for number, answer in enumerate([GOOD, BAD, GOOD])]
    found = {"usage": True, "prompt_tokens": 100, "completion_tokens": 10}
    assert generate.summary(rows, [api, local], {"api": found, "t0": None}) == {
        "api": {"requests": 3, "answered": 2, "failed": {"timeout": 1}, "prompt_tokens": 6, "completion_tokens": 4,
                "cost_usd": 0.000246, "probe": found},
        "t0": {"requests": 0, "answered": 0, "failed": {}, "prompt_tokens": 0, "completion_tokens": 0, "cost_usd": 0,
               "probe": None},
    }  # fmt: skip
    assert generate.summary(rows, [an_api()], {"api": None})["api"]["cost_usd"] is None


def test_what_outlives_the_outs_is_in_the_repository_that_owns_the_run(tmp_path):
    assert home({}, tmp_path) == tmp_path / ".distill"
    assert home({}, tmp_path / ".dvc" / "tmp" / "exps" / "x1") == tmp_path / ".distill"
    assert home({"DISTILL_HOME": "/elsewhere"}, tmp_path) == Path("/elsewhere")
