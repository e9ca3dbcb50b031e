"""Scores as ratios of sums over items: which columns of metrics/items.csv they are made of."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from distill.bootstrap import Estimate, mean_score, ratio_interval
from distill.choices import CHANCE


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
        "agreement": Measure("agreed", "tokens"),
        "rouge_l": Measure("rouge_l"),
        "generated_agreement": Measure("generated_same", "generated_tokens"),
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
