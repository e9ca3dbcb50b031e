"""Scores as ratios of sums over items: which columns of metrics/items.csv they are made of."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from distill.evaluation.bootstrap import Estimate, mean_score, ratio_interval
from distill.evaluation.multiple_choice import CHANCE


def same(values: np.ndarray) -> np.ndarray:
    """The values as they are."""
    return values


@dataclass(frozen=True)
class Measure:
    """transform(sum of column `top` / sum of column `bottom`); without `bottom` the mean of `top`."""

    top: str
    bottom: str | None = None
    transform: Callable[[np.ndarray], np.ndarray] = same

    def ratio(self, items: pd.DataFrame) -> tuple[np.ndarray, np.ndarray]:
        """Numerators and denominators of the items that have this score, [items] each."""
        rows = items[items[self.top].notna()]
        bottom = np.ones(len(rows)) if self.bottom is None else rows[self.bottom].to_numpy(float)
        return rows[self.top].to_numpy(float), bottom

    def ratios(self, seeds: Sequence[pd.DataFrame]) -> tuple[np.ndarray, np.ndarray]:
        """The same of each training seed's items, all in one order, [seeds, items] each."""
        tops, bottoms = zip(*map(self.ratio, seeds), strict=True)
        return np.stack(tops), np.stack(bottoms)

    def value(self, numerators: np.ndarray, denominators: np.ndarray) -> float:
        """The score itself, the mean of the seeds' scores where there are several."""
        return mean_score(numerators, denominators, self.transform)


def measures(chance: float) -> dict[str, Measure]:
    """Every score by its name; `chance` is the accuracy of a guess."""
    return {
        "accuracy": Measure("correct"),
        "accuracy_norm": Measure("correct_norm"),
        "accuracy_above_chance": Measure("correct", transform=lambda share: (share - chance) / (1 - chance)),
        "perplexity": Measure("nll", "tokens", np.exp),
        "bits_per_byte": Measure("nll", "bytes", lambda nats: nats / np.log(2)),
        "top1_agreement": Measure("top1_tokens", "tokens"),
        "rouge_l": Measure("rouge_l"),
        "token_match": Measure("matching_tokens", "longer_length"),
    }


def chance_of(labels: Sequence[str] | None) -> float:
    """The accuracy of a guess among the labels, and without them in our multiple choice."""
    return CHANCE if labels is None else 1 / len(labels)


def estimates(seeds: Sequence[pd.DataFrame], resamples: int, seed: int, chance: float) -> dict[str, Estimate]:
    """Every score of one model with its interval, from the items of each of its training seeds."""
    return {
        name: ratio_interval(*measure.ratios(seeds), resamples, seed, measure.transform)
        for name, measure in measures(chance).items()
    }


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


BINS = 10  # of equal width, as in Naeini et al. 2015


def expected_calibration_error(confidence: np.ndarray, correct: np.ndarray) -> float:
    """ECE = sum over bins b of |b| / n x |accuracy of b - mean confidence of b| (Naeini et al. 2015; Guo et al. 2017).

    `confidence` [items] is the probability of the picked answer and `correct` [items] whether it was right. The bins
    are (0, 0.1], ..., (0.9, 1]; 0 is a model whose confidence says how often it is right.
    """
    bins = np.clip(np.ceil(confidence * BINS).astype(int) - 1, 0, BINS - 1)
    gaps = [abs((correct[bins == number] - confidence[bins == number]).sum()) for number in range(BINS)]
    return float(sum(gaps) / len(confidence))


def calibration(items: pd.DataFrame) -> dict[str, float]:
    """One model's ECE in the multiple choice, beside its mean confidence and its accuracy, whose gap has the sign."""
    confidence, correct = (items[name].to_numpy(float) for name in ("confidence", "correct"))
    return {
        "ece": expected_calibration_error(confidence, correct),
        "mean_confidence": float(confidence.mean()),
        "accuracy": float(correct.mean()),
    }


def lengths(items: pd.DataFrame) -> dict[str, float]:
    """Mean length of one model's generated answers and of the references, in tokens of the teacher without the end of
    turn, their ratio, and the share of answers that the model ended by itself."""
    rows = items[items["generated_length"].notna()]
    generated, reference = (rows[name].to_numpy(float) for name in ("generated_length", "reference_length"))
    return {
        "generated_tokens": float(generated.mean()),
        "reference_tokens": float(reference.mean()),
        "ratio": float(generated.sum() / reference.sum()),
        "ended": float(rows["ended"].to_numpy(float).mean()),
    }
