"""Texts of evaluations that training must not contain: JSONL files and lm-eval tasks."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from distill.core.files import read_rows
from distill.core.lm_eval_tasks import loading_errors, task_manager
from distill.core.task_code import require_safe_task, task_name


def strings(value: Any) -> Iterator[str]:
    """All strings inside a JSON value, without keys."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list):
        for item in value.values() if isinstance(value, dict) else value:
            yield from strings(item)


def file_texts(name: str) -> Iterator[str]:
    """All strings of a JSONL file. Raises UserError if it is missing or broken."""
    for value in read_rows(Path(name), "you: clean.evaluation_texts in params.yaml names it"):
        yield from strings(value)


def task_texts(name: str) -> Iterator[str]:
    """All strings of the documents of an lm-eval task, group or task file (`folder/task.yaml`).

    Raises UserError for an unknown task and for data that cannot be loaded.
    """
    remedy = (
        "Otherwise remove the task from params.yaml, or put its texts into a JSONL file and name that in "
        "clean.evaluation_texts."
    )
    require_safe_task("clean.evaluation_tasks", name)
    with loading_errors("clean.evaluation_tasks", name, remedy):
        for task in task_manager().load(task_name(name))["tasks"].values():
            for document in task.eval_docs:
                yield from strings(document)
