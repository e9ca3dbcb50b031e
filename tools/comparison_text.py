"""Text of the differences between two revisions, for a terminal."""

import json
from typing import Any

from tabulate import tabulate

from distill.cards.document import format_number

MAX_DIFFERENCES = 6  # of the environment


def text(comparison: dict[str, Any]) -> str:
    """The result of tools.compare.compare in tables and notes."""
    first, second = comparison["revisions"]
    params = [[path, *map(json.dumps, pair)] for path, pair in comparison["params"].items()]
    metrics = []
    for name, row in comparison["metrics"].items():
        interval = "" if row["ci_low"] is None else f"[{row['ci_low']:+.4g}, {row['ci_high']:+.4g}]"
        values = map(format_number, row["values"])
        metrics.append([name, *values, f"{row['difference']:+.4g}", interval, row["verdict"]])
    parts = [
        f"{first} -> {second}: {comparison['model']}, {comparison['items'][1]} items",
        table(["param", first, second], params) if params else "no param differs",
        table(["metric", first, second, "difference", "95% interval", "verdict"], metrics),
        *notes(comparison),
    ]
    return "\n\n".join(parts)


def notes(comparison: dict[str, Any]) -> list[str]:
    """Paragraphs on what the comparison cannot tell."""
    paragraphs = []
    if comparison["not_paired"]:
        paragraphs.append(
            f"not tested: {comparison['not_paired']}. Only the same test can be paired:\n"
            "compare revisions that share prompts, teachers, data_seed, clean and evaluate in params.yaml."
        )
    if comparison["only_seeds_differ"]:
        paragraphs.append("only the training seeds differ: every difference is noise of training")
    elif any(len(seeds) == 1 for seeds in comparison["seeds"]):
        link = "docs/evaluation.md#several-training-seeds"
        paragraphs.append(f"one training seed: the intervals cover items only; another seed may change more ({link})")
    if environment := comparison["environment"]:
        lines = [f"  {path.strip('.')}: {before!r} -> {after!r}" for path, (before, after) in environment.items()]
        rest = len(lines) - MAX_DIFFERENCES
        paragraphs.append("\n".join([
            "warning: the environments differ, which alone may change the last digits and a few responses",
            *lines[:MAX_DIFFERENCES],
            *([f"  and {rest} more (--json has all)"] if rest > 0 else []),
        ]))  # fmt: skip
    return paragraphs


def table(header: list[str], rows: list[list[str]]) -> str:
    """The rows in columns, as they are."""
    return tabulate(rows, headers=header, tablefmt="plain", disable_numparse=True)
