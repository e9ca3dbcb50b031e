"""Colors, fonts, and the titles, notes and labels that all figures share."""

import io
import textwrap
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from distill.cards.document import format_number

# Okabe and Ito's colors: readers with color blindness can tell them apart
COLORS = {"teacher": "#333333", "init": "#8C8C8C", "sft": "#D98E00", "distilled": "#0072B2"}
MET, MISSED, DATA, MUTED, GRID = "#00795A", "#C44E00", "#7D8FA3", "#666666", "#E5E5E5"
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
    """A figure 9 inches wide and its panels, row by row. A narrow one is 4.4 inches wide with stacked panels."""
    width = 9.0
    if narrow:
        rows, columns, width, height = rows * columns, 1, 4.4, height * columns
    figure = Figure(figsize=(width, height), layout=ConstrainedLayoutEngine(w_pad=0.1, h_pad=0.08))
    return figure, list(np.ravel(figure.subplots(rows, columns)))


def add_note(figure: Figure, text: str) -> None:
    """A line below the panels, broken to the width of the figure."""
    figure.supxlabel(textwrap.fill(text, int(figure.get_figwidth() * 13)), fontsize=9, color=MUTED)


def set_title(axes: Axes, title: str, subtitle: str, color: str = MUTED) -> None:
    """A title with a line below it."""
    axes.set_title(title, pad=19)
    text = axes.annotate(subtitle, (0, 1), (0, 6), xycoords="axes fraction", textcoords="offset points", color=color)
    text.set_in_layout(False)  # its length must not shrink the panel


def set_grid(axes: Axes, axis: Any = "both") -> None:
    """Light lines behind the data."""
    axes.grid(axis=axis, color=GRID, linewidth=0.8)
    axes.set_axisbelow(True)


def set_log_ticks(axis: Axis) -> None:
    """Plain numbers at 1, 2 and 5 times each power of ten, for a logarithmic axis."""
    axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axis.set_major_formatter(FuncFormatter(lambda value, _: format_number(value)))
    axis.set_minor_formatter(NullFormatter())


def spread_apart(positions: Sequence[float], gap: float) -> list[float]:
    """The positions with at least `gap` between neighbors, moved by equal amounts, in the same order."""
    order = np.argsort(positions, kind="stable")
    moved = np.array(positions, dtype=float)[order]
    for _ in range(100):
        missing = np.maximum(0, gap - np.diff(moved)) / 2
        moved += np.append(0, missing) - np.append(missing, 0)
    return [float(moved[rank]) for rank in np.argsort(order)]


def label_models(axes: Axes, points: dict[str, tuple[float, float]], offset: float) -> None:
    """Writes each model's name and value `offset` points right of its point (x, y), without overlap."""
    heights = axes.transAxes.inverted().transform(axes.transData.transform(list(points.values())))[:, 1]
    for (name, (x, y)), height in zip(points.items(), spread_apart(heights.tolist(), 0.075), strict=True):
        axes.annotate(
            f"{name} {format_number(y)}",
            (x, height),
            xytext=(offset, 0),
            xycoords=("data", "axes fraction"),
            textcoords="offset points",
            color=COLORS[name],
            weight="bold",
            va="center",
            annotation_clip=False,
        )


def svg(figure: Figure) -> bytes:
    """The figure as SVG, the same bytes each time."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    return buffer.getvalue()
