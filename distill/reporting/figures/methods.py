"""Figure of the comparison of methods."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from distill.reporting.figures.style import COLORS, DATA, add_note, canvas, set_grid, set_log_ticks, set_title

TITLES = {
    "perplexity": ("Perplexity", "less is better"),
    "top1_agreement": ("Top-1 agreement", "more is better"),
    "held_out_kl": ("Held-out KL", "nats per token, less is better"),
}


def draw_methods(methods: Sequence[dict[str, Any]], narrow: bool = False) -> Figure:
    """Perplexity, top-1 agreement and held-out KL of each method with intervals, the best perplexity on top."""
    figure, panels = canvas(narrow, 3, 1.2 + 0.22 * len(methods))
    ordered = sorted(methods, key=lambda row: row["perplexity"])
    names, heights = [row["method"] for row in ordered], np.arange(len(ordered))
    for number, (axes, (score, titles)) in enumerate(zip(panels, TITLES.items(), strict=True)):
        ends = [f"{score}_ci_low", f"{score}_ci_high"] if f"{score}_ci_low" in ordered[0] else [score, score]
        values, low, high = np.array([[row[name] for row in ordered] for name in (score, *ends)], dtype=float)
        spans = [np.maximum(0, values - low), np.maximum(0, high - values)]
        axes.errorbar(values, heights, xerr=spans, fmt="o", color=DATA, ecolor=DATA, markersize=5, linewidth=1.2)
        if "sft" in names:
            axes.axvline(values[names.index("sft")], color=COLORS["sft"], linewidth=1, linestyle="--", zorder=0)
        if score == "perplexity":
            axes.set_xscale("log")
            set_log_ticks(axes.xaxis)
        axes.set_yticks(heights, names if narrow or number == 0 else [""] * len(names))
        axes.tick_params(axis="y", length=0)
        axes.set_ylim(len(names) - 0.5, -0.5)
        set_grid(axes, "x")
        set_title(axes, *titles)
    add_note(figure, "whiskers are 95% intervals over items and seeds; dashed: the baseline sft, cross-entropy alone")
    return figure
