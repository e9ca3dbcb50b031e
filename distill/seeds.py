"""What the scores of several training seeds amount to."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from distill.bootstrap import Estimate
from distill.measures import measures


def over_seeds(
    seeds: Sequence[pd.DataFrame], scores: dict[str, Estimate], chance: float
) -> dict[str, dict[str, float | int | None]]:
    """Each score of one model over its training seeds: how many, mean, sd, and the interval over items and seeds.

    `seeds` has the items of each, `scores` the estimates from all. The sd is a sample's, None for one seed.
    """
    found: dict[str, dict[str, float | int | None]] = {}
    for name, measure in measures(chance).items():
        values = [measure.value(*measure.ratio(items)) for items in seeds]
        found[name] = {
            "seeds": len(values),
            "mean": scores[name].value,
            "sd": float(np.std(values, ddof=1)) if len(values) > 1 else None,
            "ci_low": scores[name].ci_low,
            "ci_high": scores[name].ci_high,
        }
    return found


def mean_of(rows: Sequence[dict[str, float]]) -> dict[str, float]:
    """The mean of each number over rows of the same keys."""
    return {key: float(np.mean([row[key] for row in rows])) for key in rows[0]}


def mean_tasks(seeds: Sequence[dict[str, dict[str, Any]]]) -> dict[str, dict[str, Any]]:
    """Each task's row with the means of its `scores`; all else of it is the same for every seed."""
    return {
        task: row | {"scores": mean_of([found[task]["scores"] for found in seeds])} for task, row in seeds[0].items()
    }
