"""lm-eval's run of tasks on one model, and the guard that its result is of all documents."""

import json
import math
from typing import Any

import lm_eval

from distill.core.errors import UserError


def measure_ours(lm: Any, tasks: Any) -> Any:
    """lm-eval's results of loaded tasks that say all about how they are asked, with the samples of every task.

    `lm_eval.simple_evaluate` would ask pip, git and lscpu about the environment each time, which takes seconds.
    """
    return lm_eval.evaluate(lm=lm, task_dict=tasks, bootstrap_iters=0)


def measure(lm: Any, tasks: list[Any], seed: int, **options: Any) -> Any:
    """lm-eval's results with the samples of every task, without its own bootstrap."""
    return lm_eval.simple_evaluate(
        model=lm,
        tasks=tasks,
        bootstrap_iters=0,
        random_seed=seed,
        numpy_random_seed=seed,
        torch_random_seed=seed,
        fewshot_random_seed=seed,
        **options,
    )


def limited(results: Any) -> dict[str, tuple[int, int]]:
    """The tasks that were measured on fewer documents than they have: (measured, all)."""
    counts = {task: (found["effective"], found["original"]) for task, found in results["n-samples"].items()}
    return {task: (measured, whole) for task, (measured, whole) in counts.items() if measured < whole}


def whole(results: Any) -> Any:
    """The results as they are. Raises UserError where a limit cut a task: that is no score for a table."""
    cut = limited(results)
    if cut:
        tasks = ", ".join(f"{task} on {measured} of {count} documents" for task, (measured, count) in cut.items())
        raise UserError(
            f"a limit cut what was measured ({tasks}): such a score is not for the main table. Measure all documents; "
            "evaluate.max_samples in params.yaml says how many there are."
        )
    return results


def plain(value: Any) -> Any:
    """What lm-eval logs, as JSON has it: tuples as lists, numbers that are not finite and other objects as text."""
    if isinstance(value, dict):
        return {str(key): plain(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [plain(part) for part in value]
    if hasattr(value, "item") and getattr(value, "ndim", None) == 0:
        value = value.item()  # a scalar of numpy or torch
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    try:
        return json.loads(json.dumps(value))
    except (TypeError, ValueError):
        return str(value)
