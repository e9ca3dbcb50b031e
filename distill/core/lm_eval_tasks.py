"""lm-eval's index of tasks, and the message for a task that cannot be loaded."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import TYPE_CHECKING

from distill.core.errors import UserError

if TYPE_CHECKING:
    from lm_eval.tasks import TaskManager


@cache
def task_manager() -> "TaskManager":
    """lm-eval's index of its tasks: it reads thousands of files, once.

    Imported here: lm-eval takes seconds to import and loads torch, for options that are off by default.
    """
    import datasets
    from lm_eval.tasks import TaskManager

    logging.getLogger("lm_eval").setLevel(logging.ERROR)
    datasets.disable_progress_bars()
    return TaskManager()


@contextmanager
def loading_errors(param: str, task: str, remedy: str) -> Iterator[None]:
    """Raises UserError where the block meets an unknown task, or data that this machine cannot load.

    The message names the `param` that lists the task, and ends with the `remedy`.
    """
    from datasets.exceptions import DatasetsError

    try:
        yield
    except (OSError, KeyError, ValueError, ImportError, DatasetsError) as error:
        reason = (str(error).strip().splitlines() or [""])[0][:300]
        raise UserError(
            f"{param}: {task!r} cannot be loaded ({type(error).__name__}: {reason}). It must be a name that "
            "`lm-eval ls tasks` lists or the path of a task's YAML file, and this machine must reach its data. "
            f"{remedy}"
        ) from None
