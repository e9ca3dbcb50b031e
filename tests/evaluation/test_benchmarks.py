"""Benchmarks of lm-eval: prompts, samples, limits, pinned data and messages."""

import json

import benchmark_task
import datasets
import pytest
import tiny

from distill.core import lm_eval_tasks
from distill.core.errors import UserError
from distill.evaluation import benchmarks
from distill.params.evaluate import Benchmark
from distill.params.loading import check_params


@pytest.fixture(autouse=True)
def private_cache(tmp_path, monkeypatch):
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")


def run(model, path, limit=None, **settings):
    benchmark = Benchmark(task=str(path), **(benchmark_task.SETTINGS | settings))
    return benchmarks.run(model, tiny.tokenizer(), benchmark, limit, 0)


def first_input(model, path, **settings) -> str:
    """The text that the model reads before the choices of the second document."""
    _, rows = run(model, path, **settings)
    return rows[1]["arguments"][0][0]


def test_a_task_of_a_yaml_file_has_scores_and_a_row_per_sample(model, tmp_path):
    scores, rows = run(model, benchmark_task.write(tmp_path / "task"))
    colours = scores["colours"]
    assert (colours["limited"], colours["documents"], colours["total_documents"]) == (False, 5, 5)
    assert (colours["num_fewshot"], colours["apply_chat_template"]) == (0, False)
    assert colours["scores"]["acc,none"] == sum(row["scores"]["acc"] for row in rows) / 5
    assert [row["doc_id"] for row in rows] == [0, 1, 2, 3, 4]
    assert rows[1]["doc"]["question"] == "test number 1 is"
    assert rows[1]["arguments"] == [["test number 1 is", " red"], ["test number 1 is", " green"]]
    picked = [max(range(2), key=lambda index, row=row: row["filtered_resps"][index][0]) for row in rows]
    assert [float(choice == row["target"]) for choice, row in zip(picked, rows, strict=True)] == [
        row["scores"]["acc"] for row in rows
    ]
    json.dumps(rows, allow_nan=False)


def test_a_limit_marks_the_task_and_keeps_it_apart(model, tmp_path):
    path = benchmark_task.write(tmp_path / "task")
    limited, rows = run(model, path, limit=2)
    assert len(rows) == 2
    colours = limited["colours"]
    assert (colours["limited"], colours["documents"], colours["total_documents"]) == (True, 2, 5)
    complete, _ = run(model, path, limit=5)  # no fewer than there are
    assert not complete["colours"]["limited"]
    parts = benchmarks.split_limited({"teacher": limited, "sft": complete})
    assert parts == ({"sft": complete}, {"teacher": limited})


def test_examples_and_the_chat_template_are_applied(model, tmp_path):
    path = benchmark_task.write(tmp_path / "task")
    text = "train number 0 is red\n\ntest number 1 is"
    assert first_input(model, path, num_fewshot=1) == text
    turn = first_input(model, path, num_fewshot=1, apply_chat_template=True)
    assert turn == f"<|im_start|>user\n{text}<|im_end|>\n<|im_start|>assistant\n"
    turns = first_input(model, path, num_fewshot=1, apply_chat_template=True, fewshot_as_multiturn=True)
    assert turns.count("<|im_start|>user") == 2
    assert run(model, path, num_fewshot=1)[0]["colours"]["num_fewshot"] == 1


def test_a_revision_pins_the_data_of_a_task(model, tmp_path, monkeypatch):
    path = benchmark_task.write(tmp_path / "task")
    revisions = []
    real = datasets.load_dataset

    def load_dataset(*arguments, **options):
        revisions.append(options.get("revision"))
        return real(*arguments, **options)

    monkeypatch.setattr("datasets.load_dataset", load_dataset)
    assert run(model, path, revision="a" * 40)[0]["colours"]["revision"] == "a" * 40
    assert set(revisions) == {"a" * 40}
    with pytest.raises(UserError, match=r"mmlu.*revision"):
        run(model, "mmlu", revision="a" * 40)


def test_other_documents_or_settings_have_another_hash(tmp_path):
    benchmark = Benchmark(task=str(benchmark_task.write(tmp_path / "task")), **benchmark_task.SETTINGS)
    first = benchmarks.data_hash(benchmark)
    assert benchmarks.data_hash(benchmark) == first
    benchmark_task.write(tmp_path / "task", test=6)
    assert benchmarks.data_hash(benchmark) != first
    path = benchmark_task.write(tmp_path / "task")
    assert benchmarks.data_hash(benchmark) == first
    path.write_text(path.read_text().replace("doc_to_target: answer", "doc_to_target: 0"))
    assert benchmarks.data_hash(benchmark) != first


def test_a_task_that_cannot_be_loaded_is_a_message(model, tmp_path):
    with pytest.raises(UserError, match="no_such_task"):
        run(model, "no_such_task")
    path = benchmark_task.write(tmp_path / "task")
    (tmp_path / "task/test.jsonl").unlink()
    with pytest.raises(UserError, match=r"evaluate\.benchmarks.*colours\.yaml.*reach its data"):
        run(model, path)


def test_the_task_on_local_files_of_the_docs_works_and_keeps_invalid_texts(model, tmp_path, monkeypatch):
    path = tiny.ROOT / "experiments/tasks/gsm8k_local.yaml"
    folder = tmp_path / "data/tasks"
    folder.mkdir(parents=True)
    for split, count in (("train", 2), ("test", 1)):
        rows = [
            {"question": f"{split} {number}: 2 + {number}?", "answer": f"It is {2 + number}. #### {2 + number}"}
            for number in range(count)
        ]
        (folder / f"gsm8k_{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    monkeypatch.chdir(tmp_path)
    scores, (sample,) = run(model, path, num_fewshot=2)
    prompt = sample["arguments"][0][0]
    assert prompt.startswith("Question: train 0: 2 + 0?\nAnswer: It is 2. #### 2\n\nQuestion: train 1")
    assert prompt.endswith("Question: test 0: 2 + 0?\nAnswer:")
    assert scores["gsm8k_local"]["scores"] == {"exact_match,strict-match": 0.0}
    assert sample["filtered_resps"] == ["[invalid]"]
    assert len(sample["resps"][0][0]) > 0


def test_a_hub_that_cannot_be_reached_is_asked_once(monkeypatch):
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", False)
    assert lm_eval_tasks.work_offline_if_unreachable.__wrapped__()
    assert constants.HF_HUB_OFFLINE
    assert datasets.config.HF_HUB_OFFLINE


def test_examples_as_turns_need_a_chat_template():
    with pytest.raises(ValueError, match="needs apply_chat_template: true"):
        Benchmark(task="x", **(benchmark_task.SETTINGS | {"fewshot_as_multiturn": True}))


def test_a_task_is_listed_once():
    task = benchmark_task.SETTINGS | {"task": "x"}
    with pytest.raises(UserError, match="benchmarks: tasks must be different"):
        check_params(tiny.params(evaluate__benchmarks=[task, task | {"num_fewshot": 5}]))
