"""Runs of lm-eval, and the check that a result covers all documents."""

import json
import math
from typing import Any

import lm_eval
from lm_eval.api.model import LM

from distill.core.errors import UserError


def run_held_out(lm: LM, tasks: Any) -> dict[str, Any]:
    """lm-eval's results of our loaded tasks, with the samples of every task.

    `lm_eval.simple_evaluate` would run pip, git and lscpu each time to describe the environment, which takes seconds.
    """
    return lm_eval.evaluate(lm=lm, task_dict=tasks, bootstrap_iters=0)


def run_benchmark(lm: LM, task: Any, seed: int, **options: Any) -> dict[str, Any]:
    """lm-eval's results of a benchmark with the samples of every task, without lm-eval's own bootstrap."""
    return lm_eval.simple_evaluate(
        model=lm,
        tasks=[task],
        bootstrap_iters=0,
        random_seed=seed,
        numpy_random_seed=seed,
        torch_random_seed=seed,
        fewshot_random_seed=seed,
        **options,
    )


def truncated_tasks(results: dict[str, Any]) -> dict[str, tuple[int, int]]:
    """The tasks measured on fewer documents than they have: (measured, all)."""
    counts = {task: (count["effective"], count["original"]) for task, count in results["n-samples"].items()}
    return {task: (measured, total) for task, (measured, total) in counts.items() if measured < total}


def require_complete(results: dict[str, Any]) -> dict[str, Any]:
    """The results unchanged. Raises UserError where a limit truncated a task."""
    truncated = truncated_tasks(results)
    if truncated:
        tasks = ", ".join(f"{task} on {measured} of {total}" for task, (measured, total) in truncated.items())
        raise UserError(
            f"The main table must have scores on all documents, got {tasks} documents: a limit of lm-eval truncated "
            "the tasks. Remove it, and set evaluate.max_samples in params.yaml to the number of documents you want."
        )
    return results


def to_json(value: Any) -> Any:
    """A value of lm-eval's log as JSON: tuples become lists, non-finite numbers and other objects become text."""
    if isinstance(value, dict):
        return {str(key): to_json(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [to_json(item) for item in value]
    if hasattr(value, "item") and getattr(value, "ndim", None) == 0:
        value = value.item()  # a scalar of numpy or torch
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    try:
        return json.loads(json.dumps(value))
    except (TypeError, ValueError):
        return str(value)
