"""The data card: contents of a training set, as numbers and as markdown with the front matter that hubs read."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from huggingface_hub import DatasetCardData

from distill.cards.document import Data, Section, Table, format_number
from distill.cards.hub import common_license, license_fields, size_category
from distill.cards.markdown import render
from distill.cards.prompts import prompts_section
from distill.core.text import words

Row = dict[str, Any]
MAX_EXTREMES = 10  # rows of the highest and of the lowest weight
QUANTILES = {"min": 0.0, "low": 0.25, "median": 0.5, "high": 0.75, "max": 1.0}
HEADINGS = ("min", "25%", "median", "75%", "max", "mean")  # of the quantiles and the mean


def num_words(row: Row) -> int:
    """The length of the response in words, as stage clean counts them."""
    return len(words(row["response"]))


def spread(values: Sequence[float]) -> dict[str, float]:
    """The quantiles and the mean of the values."""
    quantiles = {name: round(float(np.quantile(values, level)), 4) for name, level in QUANTILES.items()}
    return quantiles | {"mean": round(float(np.mean(values)), 4)}


def extremes(rows: Sequence[Row]) -> dict[str, list[Row]]:
    """The rows of highest and of lowest weight, ties by id; none if all weights are equal."""
    if len({row["weight"] for row in rows}) == 1:
        return {"highest": [], "lowest": []}
    return {
        "highest": sorted(rows, key=lambda row: (-row["weight"], row["id"]))[:MAX_EXTREMES],
        "lowest": sorted(rows, key=lambda row: (row["weight"], row["id"]))[:MAX_EXTREMES],
    }


def by_teacher(rows: Sequence[Row], teachers: Mapping[str, tuple[str, str | None]]) -> list[dict[str, Any]]:
    """Rows, words and weight of each teacher's responses.

    `teachers` has model and license by name. Both are null for a teacher that params.yaml does not name.
    """
    total = sum(row["weight"] for row in rows)
    result = []
    for name in sorted({row["teacher"] for row in rows} | set(teachers)):
        responses = [row for row in rows if row["teacher"] == name]
        model, license = teachers.get(name, (None, None))
        result.append(
            {
                "name": name,
                "model": model,
                "license": license,
                "rows": len(responses),
                "words": sum(map(num_words, responses)),
                "weight_fraction": round(sum(row["weight"] for row in responses) / total, 4),
            }
        )
    return result


def numbers(rows: Sequence[Row], teachers: Mapping[str, tuple[str, str | None]]) -> dict[str, Any]:
    """The card's numbers in metrics/weight.json: lengths, weights, missing data, teachers, extreme rows."""
    missing = Counter(flag for row in rows for flag in row.get("degraded", []))
    keys = ("id", "weight", "confidence")
    return {
        "words": spread([num_words(row) for row in rows]),
        "weights": spread([row["weight"] for row in rows]),
        "degraded": dict(sorted(missing.items())),
        "teachers": by_teacher(rows, teachers),
        **{name: [{key: row[key] for key in keys} for row in extreme] for name, extreme in extremes(rows).items()},
    }


def cleaning_section(clean: dict[str, Any]) -> Section:
    """Rows kept by split and dropped by reason, from metrics/clean.json."""
    splits = [
        [name, *(f"{split[key]:,}" for key in ("topics", "rows", "words"))] for name, split in clean["splits"].items()
    ]
    reasons = [[reason.replace("_", " "), f"{count:,}"] for reason, count in clean["reasons"].items() if count]
    return Section(
        "Cleaning",
        [
            f"Of {clean['requested']:,} requested responses, {clean['kept']:,} were kept and {clean['dropped']:,} "
            "dropped. `data/clean/dropped.jsonl` has each dropped row with its reason and the text that it matches.",
            Table(["split", "topics", "rows", "words"], splits),
            *([Table(["reason for dropping", "rows"], reasons)] if reasons else []),
        ],
    )


def teacher_section(metrics: dict[str, Any]) -> Section:
    """The teachers with the terms of their responses, from metrics/weight.json."""
    rows = [
        [
            Data(teacher["name"]),
            Data(teacher["model"] or "not in params.yaml"),
            Data(teacher["license"] or "not stated: find out before you share the data or the student"),
            *(f"{teacher[key]:,}" for key in ("rows", "words")),
            f"{teacher['weight_fraction']:.1%}",
        ]
        for teacher in metrics["teachers"]
    ]
    header = ["teacher", "model", "license and terms", "rows", "words", "fraction of weight"]
    return Section("Teachers and licenses", [Table(header, rows, "lllrrr")])


def weight_section(metrics: dict[str, Any]) -> Section:
    """Lengths, weights and missing data of the rows, from metrics/weight.json."""
    correlation = metrics["correlation_with_length"]
    measure = f"by {metrics['confidence']} within teacher and length, with strength {metrics['strength']:g}; "
    length = "" if correlation is None else f", rank correlation of weight and length {format_number(correlation, 2)}"
    missing = [[Data(flag), f"{count:,}"] for flag, count in metrics["degraded"].items()]
    return Section(
        "Lengths and weights",
        [
            Table(
                ["of a row", *HEADINGS],
                [[name, *map(format_number, metrics[name].values())] for name in ("words", "weights")],
            ),
            f"Weights: {metrics['kind']}, {'' if metrics['kind'] == 'uniform' else measure}effective sample size "
            f"{metrics['ess_fraction']:.1%} of the rows{length}.",
            *([Table(["missing data", "rows"], missing)] if missing else []),
        ],
    )


def extreme_section(name: str, rows: Sequence[Row]) -> Section:
    """The rows of `name` (highest, lowest) weight with their texts."""
    cells = [
        [
            format_number(row["weight"]),
            "unknown" if row["confidence"] is None else format_number(row["confidence"]),
            *map(Data, (row["id"], row["messages"][-1]["content"], row["response"])),
        ]
        for row in rows
    ]
    header = ["weight", "confidence", "row", "prompt", "response"]
    return Section(f"{len(rows)} rows of {name} weight", [Table(header, cells, "rrlll")])


def sections(rows: Sequence[Row], metrics: dict[str, Any], clean: dict[str, Any]) -> list[Section]:
    """The card's sections on responses, from the training rows, metrics/weight.json and metrics/clean.json."""
    return [
        teacher_section(metrics),
        cleaning_section(clean),
        weight_section(metrics),
        *(extreme_section(name, extreme) for name, extreme in extremes(rows).items() if extreme),
    ]


def summary(rows: Sequence[Row]) -> str:
    """Size of the training data, in a sentence."""
    prompts, topics = (len({row[key] for row in rows}) for key in ("prompt_id", "topic"))
    return (
        f"The training data, `data/weighted/train.jsonl`, has {len(rows):,} responses to {prompts:,} prompts on "
        f"{topics:,} topics."
    )


def front_matter(num_rows: int, metrics: dict[str, Any], languages: Sequence[str] | None) -> DatasetCardData:
    """License, languages, size and task for hubs. `languages` is null if stage clean did not filter by language."""
    licenses = [teacher["license"] for teacher in metrics["teachers"] if teacher["rows"]]
    return DatasetCardData(
        language=list(languages) if languages else None,
        size_categories=size_category(num_rows),
        task_categories=["text-generation"],
        tags=["distillation"],
        **license_fields(common_license(licenses)),
    )


def card(
    rows: Sequence[Row],
    metrics: dict[str, Any],
    clean: dict[str, Any],
    languages: Sequence[str] | None,
    prompts: Mapping[str, Any],
) -> str:
    """The card as a file. `prompts` is the section generate.prompts without nulls."""
    teachers, *others = sections(rows, metrics, clean)
    parts = [
        f"---\n{front_matter(len(rows), metrics, languages).to_yaml()}\n---",
        "# Data card",
        f"{summary(rows)} Stage `weight` writes this file together with the data.",
        *map(render, [teachers, prompts_section(prompts), *others]),
    ]
    return "\n\n".join(parts) + "\n"
