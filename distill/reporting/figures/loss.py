"""Figure of the losses by epoch."""

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from distill.cards.document import format_number
from distill.reporting.figures.style import COLORS, MUTED, canvas, label_models, set_grid, set_log_ticks, set_title


def draw_loss(table: pd.DataFrame, unit: str, narrow: bool = False) -> Figure:
    """Held-out loss in nats per `unit`, the same loss for all variants, and each variant's training loss.

    Phases (intermediate students, self-distillation generations) have a line each, with its name above.
    """
    figure, (left, right) = canvas(narrow, 2, 3.5)
    right.set_yscale("log")
    set_log_ticks(right.yaxis)
    for axes, split in ((left, "validation"), (right, "train")):
        ends = {}
        log = table[(table.split == split) & (table.epoch > 0)]
        style = {"marker": "o", "linewidth": 2} if split == "validation" else {"linewidth": 1}
        for (name, _), rows in log.groupby(["variant", "phase"], sort=False):
            axes.plot(rows.epoch, rows.loss, color=COLORS[str(name)], **style)
            ends[str(name)] = (table.epoch.max(), rows.loss.iloc[-1])
        mark_phases(axes, log)
        axes.set_xlim(0, table.epoch.max() * 1.02)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.set_xlabel("epoch")
        set_grid(axes, "y")
        if ends:
            label_models(axes, ends, 12)
    untrained = table[(table.split == "validation") & (table.epoch == 0)].loss
    start = f"; {format_number(untrained.iloc[0])} before training" if len(untrained) else ""
    set_title(left, "Held-out loss", f"nats per teacher {unit}, comparable{start}")
    set_title(right, "Training loss", f"nats per {unit}, each variant's loss: not comparable")
    return figure


def mark_phases(axes: Axes, log: pd.DataFrame) -> None:
    """A line at the end of each of several phases, with its name, upright if there are many."""
    ends = log.groupby("phase", sort=False).epoch.max()
    if len(ends) < 2:
        return
    axes.margins(y=0.2)  # room for the names above the lines
    starts = [0.0, *ends[:-1]]
    upright = len(ends) > 5
    for name, start, end in zip(ends.index, starts, ends, strict=True):
        axes.axvline(end, color="#BBBBBB", linewidth=0.8, linestyle=":", zorder=0)
        axes.annotate(
            str(name),
            ((start + end) / 2, 1),
            xytext=(0, -3),
            xycoords=("data", "axes fraction"),
            textcoords="offset points",
            rotation=90 if upright else 0,
            ha="center",
            va="top",
            fontsize=8,
            color=MUTED,
        )
