"""The figures of a report: a matplotlib figure from the rows behind each, wide for a page or narrow for a phone."""

import io
import textwrap
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter
from matplotlib.transforms import ScaledTranslation

from distill.cards.document import number
from distill.evaluation.goals import GOALS
from distill.reporting import report
from distill.reporting.score_tables import MODELS

TITLES = {
    "accuracy_ratio": "Accuracy, share of the teacher's",
    "perplexity": "Perplexity on the teacher's answers",
    "compression_ratio": "Parameters, share of the teacher's",
    "latency_gain": "Speed at batch 1, times the teacher's",
}
PANELS = {
    "time_to_first_token_ms": ("First token", "ms, less is better"),
    "decode_tokens_per_s": ("Decoding", "tokens/s, more is better"),
    "response_ms": ("Whole answer", "ms, less is better"),
}
# Okabe and Ito's colours: told apart by colour-blind readers too
COLOURS = {"teacher": "#333333", "init": "#8C8C8C", "sft": "#D98E00", "distilled": "#0072B2"}
MET, MISSED, DATA, MUTED = "#00795A", "#C44E00", "#7D8FA3", "#666666"
NOTE: Any = {"fontsize": 9, "color": MUTED}
STYLE: Any = {
    "font.size": 9,
    "svg.hashsalt": "report",  # names inside an SVG are random without it
    "axes.titlesize": 11,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": "#999999",
    "axes.labelcolor": MUTED,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
}


def canvas(narrow: bool, columns: int, height: float, rows: int = 1) -> tuple[Figure, list[Axes]]:
    """A figure 9 inches wide and its panels, row by row; a narrow one is 4.4 inches wide, one panel below the other."""
    width = 9.0
    if narrow:
        rows, columns, width, height = rows * columns, 1, 4.4, height * columns
    figure = Figure(figsize=(width, height), layout=ConstrainedLayoutEngine(w_pad=0.1, h_pad=0.08))
    return figure, list(np.ravel(figure.subplots(rows, columns)))


def note(figure: Figure, text: str) -> None:
    """A line below the panels, broken where the figure is narrow."""
    figure.supxlabel(textwrap.fill(text, int(figure.get_figwidth() * 13)), **NOTE)


def headed(axes: Axes, title: str, below: str, colour: str = MUTED) -> None:
    """A title and a line below it."""
    axes.set_title(title, pad=19)
    text = axes.annotate(below, (0, 1), (0, 6), xycoords="axes fraction", textcoords="offset points", color=colour)
    text.set_in_layout(False)  # its length must not make the panel smaller


def marked(axis: Axis) -> None:
    """Plain numbers at 1, 2 and 5 of each power of ten, for a logarithmic axis."""
    axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axis.set_major_formatter(FuncFormatter(lambda value, _: number(value)))
    axis.set_minor_formatter(NullFormatter())


def spread(places: Sequence[float], gap: float) -> list[float]:
    """The places, those nearer than `gap` to their neighbour moved apart by equal parts, in the same order."""
    order = np.argsort(places, kind="stable")
    moved = np.array(places, dtype=float)[order]
    for _ in range(100):
        lack = np.maximum(0, gap - np.diff(moved)) / 2
        moved += np.append(0, lack) - np.append(lack, 0)
    return [float(moved[rank]) for rank in np.argsort(order)]


def label(axes: Axes, points: dict[str, tuple[float, float]], right: float) -> None:
    """Writes each model's name and value `right` points beside its point (x, y), one above the other."""
    heights = axes.transAxes.inverted().transform(axes.transData.transform(list(points.values())))[:, 1]
    for (name, (x, y)), height in zip(points.items(), spread(heights.tolist(), 0.075), strict=True):
        axes.annotate(
            f"{name} {number(y)}", (x, height), xytext=(right, 0), xycoords=("data", "axes fraction"),
            textcoords="offset points", color=COLOURS[name], weight="bold", va="center", annotation_clip=False,
        )  # fmt: skip


def bars(axes: Axes, values: Sequence[Sequence[float]], named: bool, digits: int = 3) -> None:
    """A bar a model, the teacher on top, with the interval of its (value, low, high)."""
    for place, (name, (value, low, high)) in enumerate(zip(MODELS, values, strict=True)):
        axes.barh(place, value, color=COLOURS[name], height=0.66, zorder=2)
        if high > low:
            span = [[max(0, value - low)], [max(0, high - value)]]
            axes.errorbar(value, place, xerr=span, color="black", capsize=3, linewidth=1, zorder=3)
        axes.annotate(
            number(value, digits), (max(value, high), place), xytext=(5, 0), textcoords="offset points", va="center",
            bbox={"facecolor": "white", "edgecolor": "none", "pad": 1}, zorder=4,
        )  # fmt: skip
    axes.set_yticks(range(len(MODELS)), MODELS if named else [""] * len(MODELS))
    for tick, name in zip(axes.get_yticklabels(), MODELS, strict=True):
        tick.set(color=COLOURS[name], weight="bold")
    axes.tick_params(axis="y", length=0)
    axes.set_ylim(len(MODELS) - 0.5, -0.5)
    top = max(max(row) for row in values)
    axes.set_xlim(*((1, top**1.22) if axes.get_xscale() == "log" else (0, top * 1.18)))


def draw_loss(table: pd.DataFrame, unit: str, narrow: bool = False) -> Figure:
    """Loss on held-out topics in nats per `unit`, the same for all variants, and the training loss, each variant's own.

    The lines of rungs and rounds, trained one after the other, are apart, each with its name above it.
    """
    figure, (left, right) = canvas(narrow, 2, 3.5)
    right.set_yscale("log")
    marked(right.yaxis)
    for axes, split in ((left, "validation"), (right, "train")):
        ends = {}
        drawn = table[(table.split == split) & (table.epoch > 0)]
        style = {"marker": "o", "linewidth": 2} if split == "validation" else {"linewidth": 1}
        for (name, _), rows in drawn.groupby(["variant", "phase"], sort=False):
            axes.plot(rows.epoch, rows.loss, color=COLOURS[str(name)], **style)
            ends[str(name)] = (table.epoch.max(), rows.loss.iloc[-1])
        mark_trainings(axes, drawn)
        axes.set_xlim(0, table.epoch.max() * 1.02)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.set_xlabel("epoch")
        axes.grid(axis="y", color="#E5E5E5", linewidth=0.8)
        if ends:
            label(axes, ends, 12)
    untrained = table[(table.split == "validation") & (table.epoch == 0)].loss
    before = f"; untrained {number(untrained.iloc[0])}" if len(untrained) else ""
    headed(left, "Loss on held-out topics", f"nats per {unit} of the teacher, comparable{before}")
    headed(right, "Training loss", f"nats per {unit}, each variant's own loss: not comparable")
    return figure


def mark_trainings(axes: Axes, table: pd.DataFrame) -> None:
    """A line at the end of each training of several, with its name, upright where there are many."""
    ends = table.groupby("phase", sort=False).epoch.max()
    if len(ends) < 2:
        return
    axes.margins(y=0.2)  # room for the names above the lines
    starts = [0.0, *ends[:-1]]
    many = len(ends) > 5
    for name, start, end in zip(ends.index, starts, ends, strict=True):
        axes.axvline(end, color="#BBBBBB", linewidth=0.8, linestyle=":", zorder=0)
        axes.annotate(
            str(name), ((start + end) / 2, 1), xytext=(0, -3), xycoords=("data", "axes fraction"),
            textcoords="offset points", rotation=90 if many else 0, ha="center", va="top", fontsize=8, color=MUTED,
        )  # fmt: skip


def draw_goals(metrics: dict[str, Any], scores: pd.DataFrame, latency: dict[str, Any], narrow: bool = False) -> Figure:
    """The four goals for the four models, with intervals, and the side on which `distilled` must be."""
    figure, panels = canvas(narrow, 2, 5.2, rows=2)
    answer = {name: latency["models"][name]["response_ms"] for name in MODELS}
    for place, (axes, goal) in enumerate(zip(panels, GOALS, strict=True)):
        if goal.name == "latency_gain":
            base = answer["teacher"]["median"]
            values = [[base / answer[name][key] for key in ("median", "high", "low")] for name in MODELS]
        else:
            values = scores[scores.score == goal.name][["value", "ci_low", "ci_high"]].to_numpy().tolist()
        if goal.name == "perplexity":
            axes.set_xscale("log")
            axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: number(value)))
        bars(axes, values, named=narrow or place % 2 == 0, digits=2 if goal.name == "latency_gain" else 3)
        axes.set_xlim(right=max(axes.get_xlim()[1], goal.threshold * 1.2))
        left, right = axes.get_xlim()
        good = (goal.threshold, right) if goal.at_least else (left, goal.threshold)
        axes.axvspan(*good, color=MET, alpha=0.1, linewidth=0)
        axes.axvline(goal.threshold, color=MET, linewidth=1.2, linestyle="--", zorder=3)
        value = metrics["goals"][goal.name]
        verdict, colour = ("met", MET) if goal.met(value) else ("not met", MISSED)
        wanted = goal.condition.replace(">=", "\u2265").replace("<=", "\u2264")
        headed(axes, TITLES[goal.name], f"distilled {report.decided(goal, value)}, wanted {wanted}: {verdict}", colour)
    note(figure, "four models on held-out topics; whiskers are 95% intervals, of the speed quartiles")
    return figure


def draw_size(metrics: dict[str, Any], scores: pd.DataFrame, narrow: bool = False) -> Figure:
    """Accuracy and top-1 agreement with their intervals against the number of parameters."""
    figure, panels = canvas(narrow, 2, 3.5)
    titles = {
        "accuracy": ("Accuracy", "teacher's answer picked among four"),
        "top1_agreement": ("Top-1 agreement", "teacher's tokens ranked first"),
    }
    for axes, (score, (title, below)) in zip(panels, titles.items(), strict=True):
        points = {}
        most = max(metrics[name]["parameters"] for name in MODELS) / 1e6
        axes.set(xlim=(0, most * 1.5), ylim=(-0.03, 1.03), xlabel="million parameters")
        for row in scores[scores.score == score].itertuples():
            points[row.model] = (metrics[row.model]["parameters"] / 1e6, row.value)
            # students are of one size: side by side, so that their intervals can be told apart
            aside = 0 if row.model == "teacher" else 7 * (MODELS.index(row.model) - 2)
            axes.errorbar(
                *points[row.model], yerr=[[max(0, row.value - row.ci_low)], [max(0, row.ci_high - row.value)]], fmt="o",
                color=COLOURS[row.model], capsize=3, markersize=6, linewidth=1.2,
                transform=axes.transData + ScaledTranslation(aside / 72, 0, figure.dpi_scale_trans),
            )  # fmt: skip
        label(axes, {"teacher": points.pop("teacher")}, 10)
        label(axes, points, 17)
        axes.grid(color="#E5E5E5", linewidth=0.8)
        axes.set_axisbelow(True)
        headed(axes, title, f"{below}, 95% intervals")
    return figure


def draw_weights(table: pd.DataFrame, words: list[int], weight: dict[str, Any], narrow: bool = False) -> Figure:
    """How weights and lengths of the training samples are spread."""
    figure, panels = canvas(narrow, 2, 3.2)
    marks = {"weight": (1.0, "mean 1"), "words": (np.median(words), f"median {np.median(words):g}")}
    for axes, (quantity, (mark, text)) in zip(panels, marks.items(), strict=True):
        part = table[table.quantity == quantity]
        axes.bar(part.low, part.samples, part.high - part.low, align="edge", color=DATA, edgecolor="white", lw=0.4)
        axes.axvline(mark, color="black", linewidth=1, linestyle="--")
        axes.margins(y=0.12)
        axes.text(mark, 0.97, f"  {text}", transform=axes.get_xaxis_transform(), va="top")
        axes.set(xlabel=quantity, ylabel="training samples")
    share = f"{weight['ess_fraction']:.0%} of {len(words):,}"
    panels[0].set_xlim(0, max(2.0, *table[table.quantity == "weight"].high))  # uniform weights are one bar at 1
    headed(panels[0], "Sample weights", f"{weight['kind']}; effective sample size {share}")
    headed(panels[1], "Response lengths", "words of the teacher's answers in the training data")
    return figure


def draw_latency(latency: dict[str, Any], narrow: bool = False) -> Figure:
    """Medians and quartiles of the timings at batch 1."""
    figure, panels = canvas(narrow, 3, 2.7)
    for place, (axes, (timing, (title, unit))) in enumerate(zip(panels, PANELS.items(), strict=True)):
        values = [[latency["models"][name][timing][key] for key in ("median", "low", "high")] for name in MODELS]
        bars(axes, values, named=narrow or place == 0)
        headed(axes, title, unit)
    tokens = f"{latency['prompt_tokens']} prompt tokens, {latency['new_tokens']} new tokens"
    note(figure, f"batch 1, {tokens}; median of {latency['num_runs']} runs, whiskers are quartiles")
    return figure


def draw_methods(methods: Sequence[dict[str, Any]], narrow: bool = False) -> Figure:
    """Perplexity, top-1 agreement and held-out KL of each method, with intervals; the best perplexity on top."""
    figure, panels = canvas(narrow, 3, 1.2 + 0.22 * len(methods))
    ordered = sorted(methods, key=lambda row: row["perplexity"])
    names, places = [row["method"] for row in ordered], np.arange(len(ordered))
    titles = {
        "perplexity": ("Perplexity", "less is better"),
        "top1_agreement": ("Top-1 agreement", "more is better"),
        "held_out_kl": ("Held-out KL", "nats a token, less is better"),
    }
    for place, (axes, (score, (title, below))) in enumerate(zip(panels, titles.items(), strict=True)):
        ends = [f"{score}_ci_low", f"{score}_ci_high"] if f"{score}_ci_low" in ordered[0] else [score, score]
        values, low, high = np.array([[row[name] for row in ordered] for name in (score, *ends)], dtype=float)
        spans = [np.maximum(0, values - low), np.maximum(0, high - values)]
        axes.errorbar(values, places, xerr=spans, fmt="o", color=DATA, ecolor=DATA, markersize=5, linewidth=1.2)
        if "sft" in names:
            axes.axvline(values[names.index("sft")], color=COLOURS["sft"], linewidth=1, linestyle="--", zorder=0)
        if score == "perplexity":
            axes.set_xscale("log")
            marked(axes.xaxis)
        axes.set_yticks(places, names if narrow or place == 0 else [""] * len(names))
        axes.tick_params(axis="y", length=0)
        axes.set_ylim(len(names) - 0.5, -0.5)
        axes.grid(axis="x", color="#E5E5E5", linewidth=0.8)
        axes.set_axisbelow(True)
        headed(axes, title, below)
    note(figure, "whiskers are 95% intervals over items and seeds; dashed: sft, which learns from texts alone")
    return figure


def svg(figure: Figure) -> bytes:
    """The figure as SVG, the same bytes each time."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    return buffer.getvalue()
