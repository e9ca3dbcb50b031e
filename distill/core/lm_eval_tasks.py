"""lm-eval's index of tasks, and the message for a task that cannot be loaded."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import TYPE_CHECKING

from distill.core.errors import UserError

if TYPE_CHECKING:
    from lm_eval.tasks import TaskManager

PROBE_SECONDS = 5


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


@cache
def work_offline_if_unreachable() -> bool:
    """Whether the hub cannot be reached. Then this process uses what is in its cache, without five retries a file."""
    import datasets
    import httpx2
    from huggingface_hub import constants, get_session

    if constants.HF_HUB_OFFLINE:
        return True
    try:
        get_session().head(constants.ENDPOINT, timeout=PROBE_SECONDS)
    except (httpx2.HTTPError, OSError):
        constants.HF_HUB_OFFLINE = True
        datasets.config.HF_HUB_OFFLINE = True
        return True
    return False


@contextmanager
def loading_errors(param: str, task: str, remedy: str) -> Iterator[None]:
    """Raises UserError where the block meets an unknown task, or data that this machine cannot load.

    The message names the `param` that lists the task, and ends with the `remedy`.
    """
    from datasets.exceptions import DatasetsError

    offline = work_offline_if_unreachable()
    try:
        yield
    except (OSError, KeyError, ValueError, ImportError, DatasetsError) as error:
        hub = " It cannot reach the hub now, and the data is not in its cache." if offline else ""
        reason = (str(error).strip().splitlines() or [""])[0][:300]
        raise UserError(
            f"{param}: {task!r} cannot be loaded ({type(error).__name__}: {reason}). It must be a name that "
            "`lm-eval ls tasks` lists or the path of a task's YAML file, and this machine must reach its data."
            f"{hub} Give the data as local files, by a task of your own (docs/evaluation.md#tasks-on-local-files). "
            f"{remedy}"
        ) from None
