"""Ids of requests, and the folder of the journals."""

from pathlib import Path

import pytest
import tiny
from chat_server import api_teacher

from distill.core.home import home
from distill.generation.budget import Budget
from distill.generation.completions import Request
from distill.generation.requests import QueryContext, build_request
from distill.params.generate import Generate
from distill.params.schema import Runtime
from distill.params.teachers import ApiTeacher, LocalTeacher, Teacher
from stages.generate import response_sampling

MESSAGES = [{"role": "user", "content": "What are ants?"}]
GENERATE = Generate(**tiny.params()["generate"])
LOCAL = LocalTeacher(**tiny.params()["teachers"][0])


def request(teacher: Teacher = LOCAL, **changes: object) -> Request:
    """A request with changes of params, runtime or prompt."""
    values = {"prompt_id": "ants/what", "messages": MESSAGES, "sample": 0, "seed": 1} | changes
    seed, prompt_id, messages, sample = (values.pop(key) for key in ("seed", "prompt_id", "messages", "sample"))
    runtime = {"threads": 1, "dtype": "float32"}
    runtime |= {name: values.pop(name) for name in runtime if name in values}
    params = GENERATE.model_copy(update=values)
    context = QueryContext(Runtime(**runtime), params.batch_size, {}, Path(), (), Budget(None, 0.0))
    return build_request(teacher, response_sampling(params, seed), context, prompt_id, messages, sample)


def test_ids_of_requests_stay_those_of_journals_on_disk():
    """These ids were made before the params got their present names."""
    api = an_api(name="api", extra_body={"min_p": 0.1})
    assert request().id == "623e94e35aa92e89474c431147d70a7e"
    assert request(LOCAL.model_copy(update={"chat_template": "few_shot"})).id == "592ca5c699d1307f144bb562b01b9d0b"
    assert request(api, class_labels=["good", "bad"]).id == "31b7c8313a47af004cea7adb8087be2d"
    assert request(api).id == "3fa0c1e41e5deba8994173b19ba4ce9b"


@pytest.mark.parametrize(
    "change",
    [
        {"max_new_tokens": 5}, {"sampling_temperature": 0.2}, {"top_p": 0.5}, {"batch_size": 3}, {"seed": 2},
        {"dtype": "bfloat16"}, {"sample": 1}, {"prompt_id": "ants/other"},
        {"messages": [{"role": "user", "content": "What are ants??"}]},
    ],
)  # fmt: skip
def test_a_request_has_another_id_if_its_response_may_differ(change):
    assert request(**change).id != request().id


def test_a_replaced_teacher_is_asked_again(tmp_path):
    (tmp_path / "model.safetensors").write_bytes(b"weights")
    (tmp_path / "a.gguf").write_bytes(b"weights")
    for path in (tmp_path, tmp_path / "a.gguf"):
        local = LOCAL.model_copy(update={"model": str(path)})
        before = request(local).id
        assert request(local).id == before
        (tmp_path / "model.safetensors" if path == tmp_path else path).write_bytes(b"others")
        assert request(local).id != before


def test_a_request_has_its_own_seed_and_ignores_threads():
    assert request(threads=2) == request()
    assert request(sampling_temperature=0.2).seed == request().seed
    assert len({request(**change).seed for change in ({}, {"seed": 2}, {"sample": 1}, {"prompt_id": "b"})}) == 4


def an_api(**changes: object) -> ApiTeacher:
    return ApiTeacher(**api_teacher("http://host/v1", **changes))


@pytest.mark.parametrize(
    "change", [{"base_url": "http://other/v1"}, {"model": "n"}, {"extra_body": {"min_p": 0.1}}, {"name": "twin"}]
)
def test_a_request_to_another_api_has_another_id(change):
    assert request(an_api(**change)).id != request(an_api()).id


@pytest.mark.parametrize(
    "change",
    [
        {"api_key_env": "OTHER"}, {"timeout_s": 1.0}, {"max_retries": 9}, {"concurrency": 9}, {"mode": "batch"},
        {"price": {"prompt": 1.0, "completion": 2.0}}, {"requests_per_minute": 3}, {"on_missing": "degrade"},
    ],
)  # fmt: skip
def test_a_request_ignores_key_price_and_pace(change):
    assert request(an_api(**change)) == request(an_api())


def test_journals_are_in_the_repository_that_started_the_run(tmp_path):
    assert home({}, tmp_path) == tmp_path / ".distill"
    assert home({}, tmp_path / ".dvc" / "tmp" / "exps" / "x1") == tmp_path / ".distill"
    assert home({"DISTILL_HOME": "/elsewhere"}, tmp_path) == Path("/elsewhere")
