from pathlib import Path

import pytest
import tiny

from distill.answers import Answer, Request
from distill.asking import Setup, request
from distill.home import home
from distill.params import Generate, LocalTeacher, Runtime
from stages import generate

PROMPT = {"id": "ants/what", "topic": "ants", "messages": [{"role": "user", "content": "What are ants?"}]}
GENERATE = Generate(**tiny.params()["generate"])


def teachers(*shares: float) -> list[LocalTeacher]:
    base = tiny.params()["teachers"][0]
    return [LocalTeacher(**(base | {"name": f"t{number}", "share": share})) for number, share in enumerate(shares)]


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


def asked(teacher: LocalTeacher | None = None, **changes: object) -> Request:
    """A request with some part of it changed: of the teacher, of params, of the prompt."""
    values = {"prompt_id": "ants/what", "messages": PROMPT["messages"], "sample": 0, "seed": 1} | changes
    seed, prompt_id, messages, sample = (values.pop(key) for key in ("seed", "prompt_id", "messages", "sample"))
    runtime = {"threads": 1, "dtype": "float32"}
    for name in ("threads", "dtype"):
        runtime |= {name: values.pop(name)} if name in values else {}
    params = GENERATE.model_copy(update=values)
    setup = Setup(Runtime(**runtime), params.batch_size, {}, Path())
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


def test_the_summary_counts_answers_failures_and_tokens_by_teacher():
    good = Answer("r", " hi ", "stop", [-1.0], {"prompt_tokens": 3, "completion_tokens": 2}, None)
    bad = Answer("r", "", "error", None, None, {"class": "timeout", "message": "late"})
    rows = [generate.row(PROMPT, "a", good), generate.row(PROMPT, "a", bad), generate.row(PROMPT, "b", good)]
    assert rows[0]["response"] == "hi"
    assert rows[0]["id"] == "ants/what@a"
    counts = {"requested": 2, "answered": 1, "failed": 1, "prompt_tokens": 3, "completion_tokens": 2}
    assert generate.summary(rows)["a"] == counts
    assert generate.summary(rows)["b"]["failed"] == 0


def test_what_outlives_the_outs_is_in_the_repository_that_owns_the_run(tmp_path):
    assert home({}, tmp_path) == tmp_path / ".distill"
    assert home({}, tmp_path / ".dvc" / "tmp" / "exps" / "x1") == tmp_path / ".distill"
    assert home({"DISTILL_HOME": "/elsewhere"}, tmp_path) == Path("/elsewhere")
