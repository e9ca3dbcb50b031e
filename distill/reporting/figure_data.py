"""Tables behind the figures: scores, sizes, timings, losses, and histograms of weights and lengths."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.ticker import MaxNLocator

from distill.cards.data_card import num_words
from distill.core.numbers import round_number
from distill.reporting.inputs import QUARTILES, TIMINGS, Inputs
from distill.reporting.score_tables import ESTIMATE, MODELS, SCORES

Row = dict[str, Any]
MAX_BINS = 40


def figure_data(inputs: Inputs, log: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """The table behind each figure; `log` has the losses of the trained variants."""
    weights = histogram("weight", [row["weight"] for row in inputs.rows], min_width=0.05)
    lengths = histogram("words", [num_words(row) for row in inputs.rows], min_width=1)
    return {
        "loss": log,
        "goals": pd.DataFrame(score_rows(inputs.metrics, inputs.evaluate["models"])),
        "size": pd.DataFrame(size_rows(inputs.metrics)),
        "weights": pd.DataFrame(weights + lengths),
        "latency": pd.DataFrame(latency_rows(inputs.latency)),
    }


def score_rows(metrics: Row, models: Row) -> list[Row]:
    """Every score with its interval, and the ratios to the teacher: model, score, ci_low, ci_high, value.

    The ratio of accuracies treats the teacher's accuracy as exact. The ratio of parameters has no interval.
    """
    rows = []
    for model in MODELS:
        accuracy = {key: models[model]["accuracy"][key] / metrics["teacher"]["accuracy"] for key in ESTIMATE}
        size = dict.fromkeys(ESTIMATE, metrics[model]["parameters"] / metrics["teacher"]["parameters"])
        ratios = {"accuracy_ratio": accuracy, "compression_ratio": size}
        for score, estimate in (models[model] | ratios).items():
            if score in SCORES or score in ratios:
                rows.append({"model": model, "score": score} | {key: round_number(estimate[key]) for key in ESTIMATE})
    return rows


def size_rows(metrics: Row) -> list[Row]:
    """Quality and size: model, parameters, bytes, perplexity, accuracy, top-1 agreement."""
    columns = ("parameters", "bytes", "perplexity", "accuracy", "top1_agreement")
    return [{"model": model} | {key: metrics[model][key] for key in columns} for model in MODELS]


def latency_rows(latency: Row) -> list[Row]:
    """Every timing with its quartiles: model, timing, low, high, median."""
    return [
        {"model": model, "timing": timing} | {key: latency["models"][model][timing][key] for key in QUARTILES}
        for model in MODELS
        for timing in TIMINGS
    ]


def histogram(quantity: str, values: Sequence[float], min_width: float) -> list[Row]:
    """Counts in about MAX_BINS bins [low, high) of at least `min_width`: 1, 2 or 5 times a power of ten."""
    low, high = min(values), max(values) + min_width * (1 - 1e-9)  # a width of exactly min_width must fit
    num_bins = min(MAX_BINS, round((high - low) / min_width))
    locator = MaxNLocator(num_bins, steps=[1, 2, 5, 10], min_n_ticks=1)
    edges = np.round(locator.tick_values(low, high), 9)
    counts, _ = np.histogram(values, edges)
    return [
        {"quantity": quantity, "low": float(start), "high": float(end), "samples": int(count)}
        for start, end, count in zip(edges, edges[1:], counts, strict=False)
    ]
