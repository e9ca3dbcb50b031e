"""lm-eval's own tasks: how they are asked, what is kept of them, and what a limit does to them."""

import json

import benchmark_task
import pytest
import tiny

from distill.core.errors import UserError
from distill.evaluation import benchmarks
from distill.params import loading
from distill.params.evaluate import Benchmark


@pytest.fixture(scope="module")
def network():
    return tiny.model(len(tiny.tokenizer()))


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")


def run(network, path, limit=None, **settings):
    return benchmarks.run(
        network, tiny.tokenizer(), Benchmark(task=str(path), **(benchmark_task.SETTINGS | settings)), limit, 0
    )


def test_a_task_of_a_yaml_file_is_scored_with_a_row_for_each_sample(network, tmp_path):
    scores, rows = run(network, benchmark_task.write(tmp_path / "task"))
    found = scores["colours"]
    assert (found["limited"], found["documents"], found["of"], found["num_fewshot"]) == (False, 5, 5, 0)
    assert found["scores"]["acc,none"] == sum(row["scores"]["acc"] for row in rows) / 5
    assert [row["document"] for row in rows] == [0, 1, 2, 3, 4]
    assert rows[1]["doc"]["question"] == "test number 1 is"
    assert rows[1]["asked"] == [["test number 1 is", " red"], ["test number 1 is", " green"]]
    chosen = [max(range(2), key=lambda place, row=row: row["answered"][place][0]) for row in rows]
    assert [float(choice == row["target"]) for choice, row in zip(chosen, rows, strict=True)] == [
        row["scores"]["acc"] for row in rows
    ]
    json.dumps(rows, allow_nan=False)


def test_a_limit_marks_the_task_and_keeps_it_apart(network, tmp_path):
    path = benchmark_task.write(tmp_path / "task")
    cut, rows = run(network, path, limit=2)
    assert len(rows) == 2
    assert (cut["colours"]["limited"], cut["colours"]["documents"], cut["colours"]["of"]) == (True, 2, 5)
    full, _ = run(network, path, limit=5)  # no fewer than there are
    assert not full["colours"]["limited"]
    assert benchmarks.parted({"teacher": cut, "sft": full}) == ({"sft": full}, {"teacher": cut})


def test_examples_and_the_chat_template_are_asked_for(network, tmp_path):
    path = benchmark_task.write(tmp_path / "task")
    shot = "train number 0 is red\n\ntest number 1 is"
    assert run(network, path, num_fewshot=1)[1][1]["asked"][0][0] == shot
    one_turn = run(network, path, num_fewshot=1, apply_chat_template=True)[1][1]["asked"][0][0]
    assert one_turn == f"<|im_start|>user\n{shot}<|im_end|>\n<|im_start|>assistant\n"
    turns = run(network, path, num_fewshot=1, apply_chat_template=True, fewshot_as_multiturn=True)[1][1]["asked"][0][0]
    assert turns.count("<|im_start|>user") == 2
    assert run(network, path, num_fewshot=1)[0]["colours"]["num_fewshot"] == 1


def test_a_revision_pins_the_data_of_a_task(network, tmp_path, monkeypatch):
    path = benchmark_task.write(tmp_path / "task")
    asked = []
    real = benchmarks.datasets.load_dataset

    def load_dataset(*parts, **options):
        asked.append(options.get("revision"))
        return real(*parts, **options)

    monkeypatch.setattr("datasets.load_dataset", load_dataset)
    assert run(network, path, revision="a" * 40)[0]["colours"]["revision"] == "a" * 40
    assert set(asked) == {"a" * 40}
    with pytest.raises(UserError, match=r"mmlu.*revision"):
        run(network, "mmlu", revision="a" * 40)


def test_other_documents_or_settings_of_a_task_have_another_hash(tmp_path):
    extra = Benchmark(task=str(benchmark_task.write(tmp_path / "task")), **benchmark_task.SETTINGS)
    first = benchmarks.data_hash(extra)
    assert benchmarks.data_hash(extra) == first
    benchmark_task.write(tmp_path / "task", test=6)
    assert benchmarks.data_hash(extra) != first
    path = benchmark_task.write(tmp_path / "task")
    assert benchmarks.data_hash(extra) == first
    path.write_text(path.read_text().replace("doc_to_target: answer", "doc_to_target: 0"))
    assert benchmarks.data_hash(extra) != first


def test_a_task_whose_data_is_out_of_reach_is_a_message(network, tmp_path):
    with pytest.raises(UserError, match="no_such_task"):
        run(network, "no_such_task")
    path = benchmark_task.write(tmp_path / "task")
    (tmp_path / "task/test.jsonl").unlink()
    with pytest.raises(UserError, match=r"colours\.yaml.*reach its data"):
        run(network, path)


def test_examples_as_turns_need_a_chat_template():
    with pytest.raises(ValueError, match="only with apply_chat_template: true"):
        Benchmark(task="x", **(benchmark_task.SETTINGS | {"fewshot_as_multiturn": True}))


def test_a_task_is_named_once():
    task = benchmark_task.SETTINGS | {"task": "x"}
    with pytest.raises(UserError, match="two are the same task"):
        loading.check(tiny.params(evaluate__benchmarks=[task, task | {"num_fewshot": 5}]))
