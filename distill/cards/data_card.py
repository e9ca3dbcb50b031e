"""The data card: what a training set is made of, as numbers and as markdown."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from distill.cards.document import Data, Section, Table, number
from distill.cards.markdown import section
from distill.core.text import words

Row = dict[str, Any]
SHOWN = 10  # rows of the highest and of the lowest weight
QUARTILES = {"min": 0.0, "low": 0.25, "median": 0.5, "high": 0.75, "max": 1.0}
HEADINGS = ("least", "25%", "median", "75%", "most", "mean")  # of the quartiles and the mean


def length(row: Row) -> int:
    """The length of the response in words, as `clean` counts them."""
    return len(words(row["response"]))


def spread(values: Sequence[float]) -> dict[str, float]:
    """Quartiles of some numbers, with the least, the largest and the mean."""
    found = {name: round(float(np.quantile(values, share)), 4) for name, share in QUARTILES.items()}
    return found | {"mean": round(float(np.mean(values)), 4)}


def extremes(rows: Sequence[Row]) -> dict[str, list[Row]]:
    """The rows of highest and of lowest weight, ties by id; none where all weigh the same."""
    if len({row["weight"] for row in rows}) == 1:
        return {"highest": [], "lowest": []}
    return {
        "highest": sorted(rows, key=lambda row: (-row["weight"], row["id"]))[:SHOWN],
        "lowest": sorted(rows, key=lambda row: (row["weight"], row["id"]))[:SHOWN],
    }


def by_teacher(rows: Sequence[Row], known: Mapping[str, tuple[str, str | None]]) -> list[dict[str, Any]]:
    """What each teacher gave, by name: `known` has its model and license, null for one that params do not name."""
    total = sum(row["weight"] for row in rows)
    result = []
    for name in sorted({row["teacher"] for row in rows} | set(known)):
        own = [row for row in rows if row["teacher"] == name]
        model, license = known.get(name, (None, None))
        result.append(
            {
                "name": name,
                "model": model,
                "license": license,
                "rows": len(own),
                "words": sum(map(length, own)),
                "share_of_weight": round(sum(row["weight"] for row in own) / total, 4),
            }
        )
    return result


def numbers(rows: Sequence[Row], known: Mapping[str, tuple[str, str | None]]) -> dict[str, Any]:
    """The card's part of metrics/weight.json: lengths, weights, what rows lack, teachers, extreme rows."""
    lacks = Counter(flag for row in rows for flag in row.get("degraded", []))
    keys = ("id", "weight", "confidence")
    return {
        "words": spread([length(row) for row in rows]),
        "weights": spread([row["weight"] for row in rows]),
        "degraded": dict(sorted(lacks.items())),
        "teachers": by_teacher(rows, known),
        **{name: [{key: row[key] for key in keys} for row in some] for name, some in extremes(rows).items()},
    }


def kept(clean: dict[str, Any]) -> Section:
    """How many rows were kept by split and dropped by reason, from metrics/clean.json."""
    splits = [
        [name, *(f"{part[key]:,}" for key in ("topics", "rows", "words"))] for name, part in clean["splits"].items()
    ]
    reasons = [[reason.replace("_", " "), f"{count:,}"] for reason, count in clean["reasons"].items() if count]
    return Section(
        "What was kept",
        [
            f"{clean['requested']:,} answers were asked for, {clean['kept']:,} kept and {clean['dropped']:,} dropped. "
            "`data/clean/dropped.jsonl` has each dropped row with its reason and the text that it matches.",
            Table(["split", "topics", "rows", "words"], splits),
            *([Table(["dropped because", "rows"], reasons)] if reasons else []),
        ],
    )


def teachers(metrics: dict[str, Any]) -> Table:
    """Whose answers the rows are and under which terms, from metrics/weight.json."""
    rows = [
        [
            Data(one["name"]),
            Data(one["model"] or "not in params.yaml"),
            Data(one["license"] or "not stated: find out before you share the data or the student"),
            *(f"{one[key]:,}" for key in ("rows", "words")),
            f"{one['share_of_weight']:.1%}",
        ]
        for one in metrics["teachers"]
    ]
    return Table(["teacher", "model", "license and terms", "rows", "words", "share of weight"], rows, "lllrrr")


def lengths_and_weights(metrics: dict[str, Any]) -> Section:
    """How lengths and weights are spread and what rows lack, from metrics/weight.json."""
    correlation = metrics["correlation_with_length"]
    measure = f"by {metrics['confidence']} within teacher and length with strength {metrics['strength']:g}, "
    lacking = [[Data(flag), f"{count:,}"] for flag, count in metrics["degraded"].items()]
    return Section(
        "Lengths and weights",
        [
            Table(
                ["of a row", *HEADINGS],
                [[name, *map(number, metrics[name].values())] for name in ("words", "weights")],
            ),
            f"Kind {metrics['kind']}, {'' if metrics['kind'] == 'uniform' else measure}effective sample size "
            f"{metrics['ess_fraction']:.1%} of the rows, rank correlation of weight and length "
            f"{'undefined' if correlation is None else number(correlation, 2)}.",
            *([Table(["rows that lack something", "rows"], lacking)] if lacking else []),
        ],
    )


def extreme(name: str, some: Sequence[Row]) -> Section:
    """The rows of `name` (highest, lowest) weight with their texts."""
    rows = [
        [
            number(row["weight"]),
            "unknown" if row["confidence"] is None else number(row["confidence"]),
            *map(Data, (row["id"], row["messages"][-1]["content"], row["response"])),
        ]
        for row in some
    ]
    header = ["weight", "confidence", "row", "prompt", "response"]
    return Section(f"The {len(some)} rows of {name} weight", [Table(header, rows, "rrlll")])


def sections(rows: Sequence[Row], metrics: dict[str, Any], clean: dict[str, Any]) -> list[Section]:
    """The card, from the training rows, metrics/weight.json and metrics/clean.json."""
    return [
        Section("Teachers, licenses and terms", [teachers(metrics)]),
        kept(clean),
        lengths_and_weights(metrics),
        *(extreme(name, some) for name, some in extremes(rows).items() if some),
    ]


def summary(rows: Sequence[Row]) -> str:
    """What the training data is, in a sentence."""
    prompts, topics = (len({row[key] for row in rows}) for key in ("prompt_id", "topic"))
    return (
        f"`data/weighted/train.jsonl`, what students learn from: {len(rows):,} answers to {prompts:,} prompts on "
        f"{topics:,} topics."
    )


def markdown(rows: Sequence[Row], metrics: dict[str, Any], clean: dict[str, Any]) -> str:
    """The card as a file."""
    first = f"{summary(rows)} Stage `weight` writes this file with it."
    return "\n\n".join(["# Data card", first, *map(section, sections(rows, metrics, clean))]) + "\n"
