"""Scores aggregated over training seeds."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from distill.evaluation.bootstrap import Estimate
from distill.evaluation.metrics import metrics


def summarize_seeds(
    seeds: Sequence[pd.DataFrame], scores: dict[str, Estimate], chance: float
) -> dict[str, dict[str, float | int | None]]:
    """Each metric of one model over its training seeds: their number, mean, standard deviation and interval.

    `seeds` has the items of each seed, `scores` the estimates from all of them. The interval is over items and
    seeds. The standard deviation is a sample's, None for one seed.
    """
    summary: dict[str, dict[str, float | int | None]] = {}
    for name, metric in metrics(chance).items():
        values = [metric.value(*metric.ratio(items)) for items in seeds]
        summary[name] = {
            "seeds": len(values),
            "mean": scores[name].value,
            "sd": float(np.std(values, ddof=1)) if len(values) > 1 else None,
            "ci_low": scores[name].ci_low,
            "ci_high": scores[name].ci_high,
        }
    return summary


def mean_values(rows: Sequence[dict[str, float]]) -> dict[str, float]:
    """The mean of each number over rows with the same keys."""
    return {key: float(np.mean([row[key] for row in rows])) for key in rows[0]}


def mean_benchmarks(seeds: Sequence[dict[str, dict[str, Any]]]) -> dict[str, dict[str, Any]]:
    """Each benchmark's row with the means of its `scores`; the rest of the row is the same for every seed."""
    return {
        task: row | {"scores": mean_values([tasks[task]["scores"] for tasks in seeds])}
        for task, row in seeds[0].items()
    }
