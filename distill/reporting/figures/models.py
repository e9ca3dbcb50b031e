"""Figures of the four models: goals, quality against size, latency."""

from collections.abc import Sequence
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter
from matplotlib.transforms import ScaledTranslation

from distill.cards.document import format_number
from distill.evaluation.goals import GOALS, Goal
from distill.reporting.figures.style import COLORS, MET, MISSED, add_note, canvas, label_models, set_grid, set_title
from distill.reporting.main_table import format_goal
from distill.reporting.score_tables import MODELS

GOAL_TITLES = {
    "accuracy_ratio": "Accuracy relative to the teacher",
    "perplexity": "Perplexity on the teacher's responses",
    "compression_ratio": "Parameters relative to the teacher",
    "latency_gain": "Speedup over the teacher at batch 1",
}
SIZE_TITLES = {
    "accuracy": ("Accuracy", "teacher's response chosen among four"),
    "top1_agreement": ("Top-1 agreement", "teacher's tokens ranked first"),
}
TIMING_TITLES = {
    "time_to_first_token_ms": ("Time to first token", "ms, less is better"),
    "decode_tokens_per_s": ("Decoding", "tokens/s, more is better"),
    "response_ms": ("Full response", "ms, less is better"),
}


def draw_bars(axes: Axes, values: Sequence[Sequence[float]], named: bool, digits: int = 3) -> None:
    """A bar for each model, the teacher on top, with the interval of its (value, low, high)."""
    for y, (name, (value, low, high)) in enumerate(zip(MODELS, values, strict=True)):
        axes.barh(y, value, color=COLORS[name], height=0.66, zorder=2)
        if high > low:
            span = [[max(0, value - low)], [max(0, high - value)]]
            axes.errorbar(value, y, xerr=span, color="black", capsize=3, linewidth=1, zorder=3)
        axes.annotate(
            format_number(value, digits),
            (max(value, high), y),
            xytext=(5, 0),
            textcoords="offset points",
            va="center",
            bbox={"facecolor": "white", "edgecolor": "none", "pad": 1},
            zorder=4,
        )
    axes.set_yticks(range(len(MODELS)), MODELS if named else [""] * len(MODELS))
    for tick, name in zip(axes.get_yticklabels(), MODELS, strict=True):
        tick.set(color=COLORS[name], weight="bold")
    axes.tick_params(axis="y", length=0)
    axes.set_ylim(len(MODELS) - 0.5, -0.5)
    top = max(max(row) for row in values)
    axes.set_xlim(*((1, top**1.22) if axes.get_xscale() == "log" else (0, top * 1.18)))


def draw_goals(metrics: dict[str, Any], scores: pd.DataFrame, latency: dict[str, Any], narrow: bool = False) -> Figure:
    """The four goals for the four models with intervals, and the side of the threshold that `distilled` must reach."""
    figure, panels = canvas(narrow, 2, 5.2, rows=2)
    for number, (axes, goal) in enumerate(zip(panels, GOALS, strict=True)):
        if goal.name == "perplexity":
            axes.set_xscale("log")
            axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: format_number(value)))
        digits = 2 if goal.name == "latency_gain" else 3
        draw_bars(axes, goal_values(goal, scores, latency), named=narrow or number % 2 == 0, digits=digits)
        axes.set_xlim(right=max(axes.get_xlim()[1], goal.threshold * 1.2))
        left, right = axes.get_xlim()
        axes.axvspan(*((goal.threshold, right) if goal.at_least else (left, goal.threshold)),
                     color=MET, alpha=0.1, linewidth=0)  # fmt: skip
        axes.axvline(goal.threshold, color=MET, linewidth=1.2, linestyle="--", zorder=3)
        value = metrics["goals"][goal.name]
        status, color = ("met", MET) if goal.met(value) else ("not met", MISSED)
        condition = goal.condition.replace(">=", "\u2265").replace("<=", "\u2264")
        subtitle = f"distilled {format_goal(goal, value)}, required {condition}: {status}"
        set_title(axes, GOAL_TITLES[goal.name], subtitle, color)
    add_note(figure, "held-out topics; whiskers are 95% intervals, and quartiles for the speedup")
    return figure


def goal_values(goal: Goal, scores: pd.DataFrame, latency: dict[str, Any]) -> list[list[float]]:
    """(value, low, high) of a goal's measure for each model."""
    if goal.name != "latency_gain":
        return scores[scores.score == goal.name][["value", "ci_low", "ci_high"]].to_numpy().tolist()
    times = [latency["models"][name]["response_ms"] for name in MODELS]
    return [[times[0]["median"] / time[key] for key in ("median", "high", "low")] for time in times]


def draw_size(metrics: dict[str, Any], scores: pd.DataFrame, narrow: bool = False) -> Figure:
    """Accuracy and top-1 agreement with their intervals against the number of parameters."""
    figure, panels = canvas(narrow, 2, 3.5)
    largest = max(metrics[name]["parameters"] for name in MODELS) / 1e6
    for axes, (score, (title, subtitle)) in zip(panels, SIZE_TITLES.items(), strict=True):
        points = {}
        axes.set(xlim=(0, largest * 1.5), ylim=(-0.03, 1.03), xlabel="million parameters")
        for row in scores[scores.score == score].itertuples():
            points[row.model] = (metrics[row.model]["parameters"] / 1e6, row.value)
            # students have one size: side by side, so that their intervals can be told apart
            shift = 0 if row.model == "teacher" else 7 * (MODELS.index(row.model) - 2)
            axes.errorbar(
                *points[row.model],
                yerr=[[max(0, row.value - row.ci_low)], [max(0, row.ci_high - row.value)]],
                fmt="o",
                color=COLORS[row.model],
                capsize=3,
                markersize=6,
                linewidth=1.2,
                transform=axes.transData + ScaledTranslation(shift / 72, 0, figure.dpi_scale_trans),
            )
        label_models(axes, {"teacher": points.pop("teacher")}, 10)
        label_models(axes, points, 17)
        set_grid(axes)
        set_title(axes, title, f"{subtitle}, 95% intervals")
    return figure


def draw_latency(latency: dict[str, Any], narrow: bool = False) -> Figure:
    """Medians and quartiles of the timings at batch 1."""
    figure, panels = canvas(narrow, 3, 2.7)
    for number, (axes, (timing, titles)) in enumerate(zip(panels, TIMING_TITLES.items(), strict=True)):
        values = [[latency["models"][name][timing][key] for key in ("median", "low", "high")] for name in MODELS]
        draw_bars(axes, values, named=narrow or number == 0)
        set_title(axes, *titles)
    tokens = f"{latency['prompt_tokens']} prompt tokens, {latency['new_tokens']} new tokens"
    add_note(figure, f"batch 1, {tokens}; median of {latency['num_runs']} runs, whiskers are quartiles")
    return figure
