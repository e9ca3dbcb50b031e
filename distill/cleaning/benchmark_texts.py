"""Texts of evaluations that training must not contain: JSONL files and lm-eval tasks."""

import logging
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from distill.core.errors import UserError
from distill.core.files import read_rows

if TYPE_CHECKING:
    from lm_eval.tasks import TaskManager


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


@cache
def _task_manager() -> "TaskManager":
    """The index of lm-eval tasks. Imported here: it takes seconds and loads torch, for an option that is off."""
    import datasets
    from lm_eval.tasks import TaskManager

    logging.getLogger("lm_eval").setLevel(logging.ERROR)
    datasets.disable_progress_bars()
    return TaskManager()


def task_texts(name: str) -> Iterator[str]:
    """All strings of the documents of an lm-eval task, group or task file (`folder/task.yaml`).

    Raises UserError for an unknown task and for data that cannot be loaded.
    """
    try:
        for task in _task_manager().load(name)["tasks"].values():
            for document in task.eval_docs:
                yield from strings(document)
    except (OSError, KeyError, ValueError, ImportError) as error:
        reason = (str(error).strip().splitlines() or [""])[0][:300]
        raise UserError(
            f"clean.evaluation_tasks: the texts of {name!r} cannot be loaded ({type(error).__name__}: {reason}). A "
            "task must be a name that `lm-eval ls tasks` lists or the path of a YAML file, and its data must be within "
            "reach of this machine. Remove the task from params.yaml, or put its texts into a JSONL file and name "
            "that in clean.evaluation_texts."
        ) from None
