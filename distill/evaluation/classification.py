"""Metrics of a classifier with their intervals: accuracy, macro-F1, ECE and agreement with the teacher."""

from collections.abc import Callable, Sequence
from dataclasses import asdict
from functools import partial

import numpy as np
import pandas as pd
from sklearn.metrics import f1_score

from distill.evaluation.bootstrap import statistic_interval
from distill.evaluation.calibration import expected_calibration_error


def accuracy(items: pd.DataFrame) -> float:
    """The fraction of items whose picked label is right."""
    return float(items["correct"].mean())


def macro_f1(items: pd.DataFrame) -> float:
    """The mean of F1 over the labels that are right or picked for an item."""
    return float(f1_score(items["label"], items["picked"], average="macro", zero_division=0))


def calibration_error(items: pd.DataFrame) -> float:
    """The ECE (10 bins) of the picked label's probability within the set."""
    return expected_calibration_error(items["confidence"].to_numpy(float), items["correct"].to_numpy(float))


def teacher_agreement(items: pd.DataFrame) -> float:
    """The fraction of items for which the model picks the teacher's label."""
    return float(items["top1_tokens"].mean())


METRICS: dict[str, Callable[[pd.DataFrame], float]] = {
    "accuracy": accuracy,
    "macro_f1": macro_f1,
    "ece": calibration_error,
    "teacher_agreement": teacher_agreement,
}


def estimate_classification(seeds: Sequence[pd.DataFrame], resamples: int, seed: int) -> dict[str, dict[str, float]]:
    """Every metric of one model with its 95% interval, from the items of each of its training seeds.

    A resample repeats items, which makes its bins less even: the interval of the ECE lies somewhat high.
    """
    scores = {}
    for name, metric in METRICS.items():
        statistics = [partial(_resampled, metric, items) for items in seeds]
        scores[name] = asdict(statistic_interval(statistics, len(seeds[0]), resamples, seed))
    return scores


def _resampled(metric: Callable[[pd.DataFrame], float], items: pd.DataFrame, indices: np.ndarray) -> float:
    return metric(items.iloc[indices])
