"""The comparison of methods, from metrics/methods.csv. `python -m tools.methods` measures it."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from distill.cards.document import Table, format_number
from distill.core.errors import UserError
from distill.reporting.score_tables import significance

Row = dict[str, Any]
COMMAND = "python -m tools.methods"
SCORES = {"perplexity": "perplexity", "top1_agreement": "top-1 agreement", "accuracy": "accuracy", "rouge_l": "ROUGE-L"}
ENDS = ("ci_low", "ci_high")
DIFFERENCE = "perplexity_minus_"  # with the name of a baseline
NUMBERS = ("seeds", "items", "response_tokens", "minutes", *SCORES)  # of every method; SCORES have intervals too
OPTIONAL = ("held_out_kl", "bytes_a_token")  # empty for a method that has none


def read(path: Path) -> list[Row]:
    """The methods, None for a value that a method lacks. Raises UserError for a file of another format."""
    columns = [*NUMBERS, *(f"{score}_{end}" for score in SCORES for end in ENDS), *OPTIONAL]
    try:
        table = pd.read_csv(path, dtype={"method": str, "commit": str})
        names = table[["method", "commit"]]
        numbers = table[[*columns, *(name for name in table if name.startswith(DIFFERENCE))]].astype(float)
    except (OSError, ValueError, KeyError) as error:
        raise _invalid(path, str(error)) from None
    required = numbers[[name for name in columns if name not in OPTIONAL]]
    if names.empty or names.isna().any(axis=None) or not required.map(math.isfinite).all(axis=None):
        raise _invalid(path, "a method without a name, or with a number that is missing or not finite")
    values = numbers.astype(object).where(numbers.notna(), None)
    return pd.concat([names, values], axis=1).to_dict("records")


def _invalid(path: Path, reason: str) -> UserError:
    return UserError(
        f"{path} must be a table of methods, got: {reason[:150]}. Restore it with `git checkout {path}`, or run "
        f"`{COMMAND}`."
    )


def baselines(rows: Sequence[Row]) -> list[str]:
    """The methods that all others are compared with."""
    names = (key.removeprefix(DIFFERENCE) for key in rows[0] if key.startswith(DIFFERENCE))
    return [name for name in names if not name.endswith(ENDS)]


def difference(row: Row, baseline: str) -> str:
    """The paired difference of perplexity from a baseline with its significance; empty for the baseline itself."""
    value = row[f"{DIFFERENCE}{baseline}"]
    if row["method"] == baseline or value is None:
        return ""
    low, high = (row[f"{DIFFERENCE}{baseline}_{end}"] for end in ENDS)
    return f"{value:+.2f} [{low:+.2f}, {high:+.2f}] {significance(low, high, more_is_better=False)}"


def tables(rows: Sequence[Row]) -> list[Table]:
    """Scores of the methods, and differences from the baselines with costs. The best perplexity comes first."""
    ordered = sorted(rows, key=lambda row: row["perplexity"])
    compared = baselines(rows)
    scores = [[row["method"], *(_interval(row, score) for score in SCORES), _optional(row)] for row in ordered]
    costs = [
        [
            row["method"],
            *(difference(row, baseline) for baseline in compared),
            "" if row["bytes_a_token"] is None else f"{row['bytes_a_token']:.0f}",
            f"{row['response_tokens']:,.0f}",
            f"{row['minutes']:.1f}",
        ]
        for row in ordered
    ]
    headers = [f"minus {name} [95%]" for name in compared]
    return [
        Table(["method", *(f"{title} [95%]" for title in SCORES.values()), "held-out KL"], scores),
        Table(
            ["method", *headers, "bytes per token", "response tokens", "minutes"],
            costs,
            "l" * (1 + len(compared)) + "rrr",
        ),
    ]


def _interval(row: Row, score: str) -> str:
    low, high = (format_number(row[f"{score}_{end}"]) for end in ENDS)
    return f"{format_number(row[score])} [{low}, {high}]"


def _optional(row: Row) -> str:
    return "" if row["held_out_kl"] is None else format_number(row["held_out_kl"])


def note(rows: Sequence[Row]) -> str:
    """A paragraph on the data, the columns and the command."""
    first = rows[0]
    seeds, items = (f"{first[name]:.0f}" for name in ("seeds", "items"))
    return (
        "Each method of `experiments/methods.yaml` is trained on a part of the default prompts with "
        f"{seeds} seeds, and measured on the same {items} held-out responses. `{COMMAND}` measured it with the code of "
        f"commit {first['commit']}. `minus` is the paired difference of perplexity with its 95% interval over items "
        "and seeds: better or worse if the interval excludes zero. Held-out KL is KL(teacher || student) in nats per "
        "token over the full vocabulary. Bytes per token are those of the stored targets; minutes are those of one "
        "training."
    )
