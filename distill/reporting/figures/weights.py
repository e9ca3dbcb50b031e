"""Figure of the weights and the lengths of the training samples."""

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from distill.reporting.figures.style import DATA, canvas, set_title
from distill.reporting.inputs import Row


def draw_weights(table: pd.DataFrame, lengths: list[int], weight: Row, narrow: bool = False) -> Figure:
    """Histograms of the weights and of the lengths in words of the training samples."""
    figure, panels = canvas(narrow, 2, 3.2)
    median = np.median(lengths)
    lines = {"weight": (1.0, "mean 1"), "words": (median, f"median {median:g}")}
    for axes, (quantity, (x, text)) in zip(panels, lines.items(), strict=True):
        bins = table[table.quantity == quantity]
        axes.bar(bins.low, bins.samples, bins.high - bins.low, align="edge", color=DATA, edgecolor="white", lw=0.4)
        axes.axvline(x, color="black", linewidth=1, linestyle="--")
        axes.margins(y=0.12)
        axes.text(x, 0.97, f"  {text}", transform=axes.get_xaxis_transform(), va="top")
        axes.set(xlabel=quantity, ylabel="training samples")
    sample_size = f"{weight['ess_fraction']:.0%} of {len(lengths):,}"
    panels[0].set_xlim(0, max(2.0, *table[table.quantity == "weight"].high))  # uniform weights are one bar at 1
    set_title(panels[0], "Sample weights", f"{weight['kind']}; effective sample size {sample_size}")
    set_title(panels[1], "Response lengths", "words of the teacher's responses in the training data")
    return figure
