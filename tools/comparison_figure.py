"""Figure of the differences between two revisions."""

from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from distill.core.errors import UserError
from distill.core.files import atomic_file
from distill.reporting.score_tables import BETTER, NOISE, SCORES, WORSE

COLORS = {BETTER: "#00795A", WORSE: "#C44E00", NOISE: "#666666"}


def draw(comparison: dict[str, Any], path: Path) -> None:
    """Writes the differences with their intervals as a PNG, a panel for each metric since scales differ."""
    rows = {name: row for name, row in comparison["metrics"].items() if row["ci_low"] is not None}
    if not rows:
        raise UserError(f"--figure: no difference was tested, so there is none to draw: {comparison['not_paired']}.")
    figure = Figure(figsize=(8, 0.8 + 0.62 * len(rows)), layout="constrained")
    panels = figure.subplots(len(rows), 1, squeeze=False)[:, 0]
    for axes, (name, row) in zip(panels, rows.items(), strict=True):
        color = COLORS[row["verdict"]]
        ends = row["difference"] - row["ci_low"], row["ci_high"] - row["difference"]
        span = [[max(0, end)] for end in ends]
        axes.axvline(0, color="#999999", linewidth=1)
        axes.errorbar(row["difference"], 0, xerr=span, fmt="o", capsize=4, color=color)
        limit = 1.1 * max(abs(row["ci_low"]), abs(row["ci_high"]), 1e-9)
        axes.set(xlim=(-limit, limit), yticks=[])
        axes.set_ylabel(SCORES[name][0], rotation=0, ha="right", va="center")
        axes.annotate(row["verdict"], (1.01, 0.5), xycoords="axes fraction", va="center", color=color)
        axes.spines[["left", "right", "top"]].set_visible(False)
        axes.tick_params(labelsize=7)
    figure.suptitle("{1} minus {0}, {2}".format(*comparison["revisions"], comparison["model"]), fontsize=11)
    with atomic_file(path) as temporary:
        figure.savefig(temporary, format="png", dpi=120)
