"""Evaluation files and tasks that training must not contain."""

import json

import pytest
from lm_eval.tasks import TaskManager
from raw_rows import LETTERS, TOPIC, clean_params, drop_reasons, good_rows, raw_row

from distill.cleaning import benchmark_texts
from distill.core.errors import UserError

TASK = """
task: our_exam
dataset_path: json
dataset_kwargs:
  data_files:
    test: {data}
test_split: test
output_type: multiple_choice
doc_to_text: "{{{{question}}}}"
doc_to_choice: "{{{{choices}}}}"
doc_to_target: 0
metric_list:
  - metric: acc
"""


@pytest.fixture
def exam(tmp_path, monkeypatch):
    """An lm-eval task on a local file."""
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")
    # without the index of lm-eval's own tasks, which takes seconds
    monkeypatch.setattr(benchmark_texts, "task_manager", lambda: TaskManager(include_defaults=False))
    data = tmp_path / "exam.jsonl"
    data.write_text(json.dumps({"question": "Greek?", "choices": ["no", " ".join(LETTERS[:13])]}) + "\n")
    task = tmp_path / "exam.yaml"
    task.write_text(TASK.format(data=data))
    return task


def test_training_has_no_document_of_an_evaluation_task(exam):
    rows = [
        *good_rows(),
        raw_row(TOPIC["train"], " ".join(LETTERS), "leak"),
        raw_row(TOPIC["test"], " ".join(LETTERS[1:]), "x"),
    ]
    clean = clean_params(evaluation_tasks=[str(exam)], minhash_threshold=1.0)
    assert drop_reasons(rows, clean) == {rows[-2]["id"]: ("contaminated", f"{exam}: {' '.join(LETTERS[:13])}")}


def test_an_evaluation_task_that_cannot_be_loaded_is_refused(exam):
    (exam.parent / "exam.jsonl").unlink()
    for name in (str(exam), "no_such_task"):
        with pytest.raises(UserError, match=r"clean\.evaluation_tasks: '.*' cannot be loaded"):
            drop_reasons(good_rows(), clean_params(evaluation_tasks=[name]))


def test_training_has_no_string_of_an_evaluation_file(tmp_path):
    file = tmp_path / "exam.jsonl"
    file.write_text(json.dumps({"id": 1, "doc": {"choices": ["no", " ".join(LETTERS[:13])]}}) + "\n")
    rows = [
        *good_rows(),
        raw_row(TOPIC["train"], " ".join(LETTERS), "leak"),
        raw_row(TOPIC["test"], " ".join(LETTERS[1:]), "x"),
    ]
    clean = clean_params(evaluation_texts=[str(file)], minhash_threshold=1.0)
    assert drop_reasons(rows, clean) == {rows[-2]["id"]: ("contaminated", f"{file}: {' '.join(LETTERS[:13])}")}
    with pytest.raises(UserError, match="evaluation_texts"):
        drop_reasons(rows, clean_params(evaluation_texts=[str(tmp_path / "none.jsonl")]))
