"""The texts of evaluations, which training must not contain: JSONL files and lm-eval's tasks."""

import logging
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

from distill.core.errors import UserError
from distill.core.files import read_rows


def strings(value: Any) -> Iterator[str]:
    """All strings inside a JSON value, keys aside."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list):
        for part in value.values() if isinstance(value, dict) else value:
            yield from strings(part)


def of_file(name: str) -> Iterator[str]:
    """All strings of a JSONL file. Raises UserError where it is missing or broken."""
    for value in read_rows(Path(name), "you: clean.evaluation_texts in params.yaml names it"):
        yield from strings(value)


@cache
def _task_manager() -> Any:
    """What knows lm-eval's tasks. Imported here: it takes seconds and loads torch, for an option that is off."""
    import datasets
    from lm_eval.tasks import TaskManager

    logging.getLogger("lm_eval").setLevel(logging.ERROR)
    datasets.disable_progress_bars()
    return TaskManager()


def of_task(name: str) -> Iterator[str]:
    """All strings of the documents that an lm-eval task, group or task file (`folder/task.yaml`) evaluates on.

    Raises UserError where there is no such task or its data cannot be loaded.
    """
    try:
        for task in _task_manager().load(name)["tasks"].values():
            for document in task.eval_docs:
                yield from strings(document)
    except (OSError, KeyError, ValueError, ImportError) as error:
        reason = (str(error).strip().splitlines() or [""])[0][:300]
        raise UserError(
            f"clean.evaluation_tasks: the texts of {name!r} cannot be loaded ({type(error).__name__}: {reason}). Is it "
            "a name that `lm-eval ls tasks` lists or the path of a task's YAML file, and can this machine reach its "
            "data? Rows are not known to be free of a task's texts without them: remove the task from params.yaml, "
            "or put its texts into a JSONL file and name that in clean.evaluation_texts."
        ) from None
