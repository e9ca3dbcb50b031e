"""The result table and the goals as markdown: the same text in the report, the README and the terminal."""

import html
from collections.abc import Sequence
from typing import Any

from distill.goals import GOALS

MODELS = ("teacher", "init", "sft", "distilled")
ROLES = {
    "teacher": "the model to match",
    "init": "the student before training",
    "sft": "the student trained by cross-entropy on the teacher's texts",
    "distilled": "the student trained by the loss under test",
}


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A markdown table; the first column to the left, the others to the right."""
    lines = [header, ["---", *["---:"] * (len(header) - 1)], *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def number(value: float) -> str:
    """Three significant digits, thousands as such: 0.912, 15.3, 251,000."""
    return f"{float(f'{value:.3g}'):,.0f}" if abs(value) >= 1000 else f"{value:.3g}"


def results(metrics: dict[str, dict[str, Any]]) -> str:
    """The four models by row, from metrics.json."""
    rows = []
    for name in MODELS:
        row = metrics[name]
        interval = f"[{row['accuracy_ci_low']:.3f}, {row['accuracy_ci_high']:.3f}]"
        rows.append(
            [
                name,
                f"{row['parameters'] / 1e6:.1f} M",
                f"{row['bytes'] / 1e6:.0f} MB",
                f"{row['accuracy']:.3f} {interval}",
                number(row["perplexity"]),
                f"{row['agreement']:.3f}",
                f"{row['rouge_l']:.3f}",
            ]
        )
    header = ["model", "parameters", "on disk", "accuracy [95% interval]", "perplexity", "agreement", "ROUGE-L"]
    return table(header, rows)


def goals(metrics: dict[str, dict[str, Any]]) -> str:
    """The four goals by row, from metrics.json."""
    values = metrics["goals"]
    rows = [
        [
            goal.name.replace("_", " "),
            number(values[goal.name]),
            goal.condition,
            "met" if goal.met(values[goal.name]) else "**not met**",
            goal.meaning,
        ]
        for goal in GOALS
    ]
    return table(["goal", "value", "wanted", "", "of what"], rows)


def quoted(text: str) -> str:
    """Any text on one line of a markdown table cell, shown as it is and never as markup."""
    escaped = html.escape(text, quote=False)
    for mark in "\\`*_[]|~#":
        escaped = escaped.replace(mark, f"&#{ord(mark)};")
    return "<br>".join(escaped.splitlines())
