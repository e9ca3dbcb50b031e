"""How good a classifier is: accuracy, macro-F1, calibration and agreement with its teacher, each with an interval."""

from collections.abc import Callable, Sequence
from dataclasses import asdict
from functools import partial

import numpy as np
import pandas as pd

from distill.evaluation.bootstrap import statistic_interval
from distill.evaluation.scores import expected_calibration_error


def accuracy(items: pd.DataFrame) -> float:
    """The share of items whose picked label is the right one."""
    return float(items["correct"].mean())


def macro_f1(items: pd.DataFrame) -> float:
    """The mean over labels of F1 = 2 TP / (2 TP + FP + FN); a label that is neither right nor picked has none."""
    gold, picked = items["label"].to_numpy(), items["picked"].to_numpy()
    scores = []
    for label in np.union1d(gold, picked):
        hits = ((gold == label) & (picked == label)).sum()
        scores.append(2 * hits / ((gold == label).sum() + (picked == label).sum()))
    return float(np.mean(scores))


def calibration_error(items: pd.DataFrame) -> float:
    """The ECE (10 bins) of the picked label's probability within the set."""
    return expected_calibration_error(items["confidence"].to_numpy(float), items["correct"].to_numpy(float))


def teacher_agreement(items: pd.DataFrame) -> float:
    """The share of items on which the teacher's label is picked."""
    return float(items["top1_tokens"].mean())


MEASURES: dict[str, Callable[[pd.DataFrame], float]] = {
    "accuracy": accuracy,
    "macro_f1": macro_f1,
    "ece": calibration_error,
    "teacher_agreement": teacher_agreement,
}


def scores(seeds: Sequence[pd.DataFrame], resamples: int, seed: int) -> dict[str, dict[str, float]]:
    """Every measure of one model with its 95% interval, from the items of each of its training seeds.

    A resample has items twice, which an ECE takes for less even bins: its interval lies somewhat high.
    """
    result = {}
    for name, measure in MEASURES.items():
        of_places = [partial(_of_places, measure, items) for items in seeds]
        result[name] = asdict(statistic_interval(of_places, len(seeds[0]), resamples, seed))
    return result


def _of_places(measure: Callable[[pd.DataFrame], float], items: pd.DataFrame, places: np.ndarray) -> float:
    return measure(items.iloc[places])
