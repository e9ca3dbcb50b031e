"""The table of methods side by side, from metrics/methods.csv: `python -m tools.methods` measures it."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from distill.cards.document import Table, number
from distill.core.errors import UserError
from distill.reporting.score_tables import verdict

COMMAND = "python -m tools.methods"
SHOWN = {
    "perplexity": "perplexity",
    "top1_agreement": "top-1 agreement",
    "accuracy": "accuracy",
    "rouge_l": "ROUGE-L",
}
ENDS = ("ci_low", "ci_high")
AGAINST = "perplexity_minus_"  # with the name of a control
NUMBERS = ("seeds", "items", "response_tokens", "minutes", *SHOWN)  # of every method, and intervals of those of SHOWN
OPTIONAL = ("held_out_kl", "bytes_a_token")  # empty where a method has none
Row = dict[str, Any]


def read(path: Path) -> list[Row]:
    """The methods, None where one has no value. Raises UserError where the file is not what the command writes."""
    wanted = [*NUMBERS, *(f"{score}_{end}" for score in SHOWN for end in ENDS), *OPTIONAL]
    try:
        found = pd.read_csv(path, dtype={"method": str, "commit": str})
        names = found[["method", "commit"]]
        numbers = found[[*wanted, *(name for name in found if name.startswith(AGAINST))]].astype(float)
    except (OSError, ValueError, KeyError) as error:
        raise _broken(path, str(error)) from None
    needed = numbers[[name for name in wanted if name not in OPTIONAL]]
    if names.empty or names.isna().any(axis=None) or not needed.map(math.isfinite).all(axis=None):
        raise _broken(path, "a method without a name or with a number that is missing or not finite")
    values = numbers.astype(object).where(numbers.notna(), None)
    return pd.concat([names, values], axis=1).to_dict("records")


def _broken(path: Path, reason: str) -> UserError:
    return UserError(
        f"{path} is no table of methods ({reason[:150]}). Bring it back with `git checkout {path}`, or make it with "
        f"`{COMMAND}`."
    )


def controls(rows: Sequence[Row]) -> list[str]:
    """The methods that all are compared with."""
    names = (key.removeprefix(AGAINST) for key in rows[0] if key.startswith(AGAINST))
    return [name for name in names if not name.endswith(ENDS)]


def against(row: Row, control: str) -> str:
    """The paired difference of perplexity from a control's, and what its interval says; empty for the control."""
    difference = row[f"{AGAINST}{control}"]
    if row["method"] == control or difference is None:
        return ""
    low, high = (row[f"{AGAINST}{control}_{end}"] for end in ENDS)
    return f"{difference:+.2f} [{low:+.2f}, {high:+.2f}] {verdict(low, high, more_is_better=False)}"


def tables(rows: Sequence[Row]) -> list[Table]:
    """The scores of the methods, and what they are against the controls and cost, best perplexity first in both."""
    ordered = sorted(rows, key=lambda row: row["perplexity"])
    scores = [
        [
            row["method"],
            *(f"{number(row[score])} [{', '.join(number(row[f'{score}_{end}']) for end in ENDS)}]" for score in SHOWN),
            "" if row["held_out_kl"] is None else number(row["held_out_kl"]),
        ]
        for row in ordered
    ]
    beside = controls(rows)
    costs = [
        [
            row["method"],
            *(against(row, control) for control in beside),
            "" if row["bytes_a_token"] is None else f"{row['bytes_a_token']:.0f}",
            f"{row['response_tokens']:,.0f}",
            f"{row['minutes']:.1f}",
        ]
        for row in ordered
    ]
    return [
        Table(["method", *(f"{name} [95%]" for name in SHOWN.values()), "held-out KL"], scores),
        Table(
            ["method", *(f"against {name}" for name in beside), "bytes a token", "response tokens", "minutes"],
            costs,
            "l" * (1 + len(beside)) + "rrr",
        ),
    ]


def note(rows: Sequence[Row]) -> str:
    """What the table is, and how to make it, in a paragraph."""
    first = rows[0]
    seeds, items = (f"{first[name]:.0f}" for name in ("seeds", "items"))
    return (
        "Each method of `experiments/methods.yaml`, on the part of the default prompts that its profile takes, trained "
        f"with {seeds} seeds and measured on the same {items} held-out answers: `{COMMAND}`, with the code of commit "
        f"{first['commit']}. `against` is the paired difference of perplexity with its 95% interval over items and "
        "seeds, and whether that leaves zero out. Held-out KL is KL(teacher || student) in nats per token, exact over "
        "the vocabulary; bytes a token are what the stored targets take; minutes are those of one training."
    )
