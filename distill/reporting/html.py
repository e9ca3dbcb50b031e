"""The report as one HTML page that asks no other file or host for anything."""

import base64
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup, escape

from distill.cards import data_card, model_card
from distill.cards.document import Data, Section, flat, number, pairs, visible
from distill.evaluation.goals import GOALS
from distill.reporting import methods_table, report, score_tables

TEMPLATES = Path(__file__).parent / "templates"


@dataclass(frozen=True)
class Figure:
    """One figure as SVG, for a wide screen and for a phone's."""

    wide: bytes
    narrow: bytes


def render(
    inputs: Mapping[str, Any],
    figures: Mapping[str, Figure],
    lineage: model_card.Lineage,
    choices: Mapping[str, Any],
    files: Mapping[str, str],
) -> str:
    """The page, from what stage plot reads; `choices` are params.yaml, `files` the inputs' SHA-256 by path."""
    metrics, models, training = inputs["metrics"], inputs["evaluate"]["models"], inputs["training"]
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES), autoescape=True, undefined=StrictUndefined, trim_blocks=True,
        lstrip_blocks=True, keep_trailing_newline=True,
    )  # fmt: skip
    environment.filters |= {"prose": prose, "cell": cell, "visible": visible, "embedded": embedded}
    return environment.get_template("report.html").render(
        introduction=introduction(metrics, training, len(inputs["rows"])),
        goals_met=report.goals_met(metrics),
        goals=goals(metrics),
        goals_note=report.GOALS_NOTE,
        results=report.results(metrics),
        measured_on=report.measured_on(inputs["evaluate"]),
        measured=report.MEASURED,
        roles=report.ROLES,
        gain=report.gain(models),
        gain_note=report.GAIN_NOTE,
        intervals=score_tables.intervals(models),
        labels=score_tables.classification(inputs["evaluate"]),
        labels_note=report.LABELS_NOTE,
        statistics=score_tables.statistics(inputs["evaluate"]),
        methods=methods_table.tables(inputs["methods"]),
        methods_note=methods_table.note(inputs["methods"]),
        figures=figures,
        samples=[asked(sample) for sample in inputs["samples"]],
        regressions=[asked(row) | lost(row) for row in inputs["regressions"]],
        data_summary=data_card.summary(inputs["rows"]),
        data_card=data_card.sections(inputs["rows"], inputs["weight"], inputs["clean"]),
        model_card=model_card.sections(lineage, training),
        provenance=provenance(choices, files),
    )


def introduction(metrics: Mapping[str, Any], training: Mapping[str, Any], rows: int) -> str:
    """What was made of what, in two sentences."""
    student, teacher = (metrics[name]["parameters"] for name in ("distilled", "teacher"))
    return (
        f"The student `distilled` has {student / 1e6:.1f} M parameters, {student / teacher:.0%} of its teacher's "
        f"{teacher / 1e6:.1f} M. It comes from `{training['source']}` and learnt by `{training['loss']}` from "
        f"{rows:,} answers."
    )


def goals(metrics: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The four goals: name, value, condition, met, meaning."""
    return [
        {
            "name": goal.name.replace("_", " ").capitalize(),
            "value": report.decided(goal, metrics["goals"][goal.name]),
            "condition": goal.condition.replace(">=", "\u2265")
            .replace("<=", "\u2264")
            .replace(" ", "\N{NO-BREAK SPACE}"),
            "met": goal.met(metrics["goals"][goal.name]),
            "meaning": goal.meaning,
        }
        for goal in GOALS
    ]


def asked(row: Mapping[str, Any]) -> dict[str, Any]:
    """The prompt of a sample or a regression, and the answers to it."""
    return {"prompt": row["messages"][-1]["content"], "answers": report.answers(row).rows}


def lost(row: Mapping[str, Any]) -> dict[str, Any]:
    """What the teacher and the distilled student need for the reference, in nats per token of the teacher."""
    return {name: number(row[f"{name}_nll"] / row["tokens"]) for name in ("teacher", "distilled")} | {
        "tokens": row["tokens"]
    }


def provenance(choices: Mapping[str, Any], files: Mapping[str, str]) -> list[Section]:
    """Every choice and the hash of every input, and how to make all of it again."""
    chosen = {name: leaf for key, part in choices.items() for name, leaf in leaves(part, key).items()}
    return [
        Section("Make it again", [report.AGAIN]),
        Section("Inputs of this page", [pairs(["file", "SHA-256"], files)]),
        Section("Every choice", [pairs(["param", "value"], chosen)]),
    ]


def leaves(value: Any, path: str) -> dict[str, Any]:
    """The leaves of a section of params.yaml by dotted path; those of a list of mappings have their place in it."""
    if isinstance(value, list) and any(isinstance(part, dict) for part in value):
        value = {str(place): part for place, part in enumerate(value)}
    return flat(value, path)


def prose(text: str) -> Markup:
    """A paragraph of ours, escaped, with what stands between backticks as code."""
    parts = [
        Markup("<code>{}</code>").format(part) if place % 2 else escape(part)
        for place, part in enumerate(text.split("`"))
    ]
    return Markup("").join(parts)


def cell(text: str) -> str:
    """A table's cell: data made visible, our own without the markdown of its emphasis."""
    return visible(text) if isinstance(text, Data) else text.strip("*")


def embedded(image: bytes) -> str:
    """An SVG image as a data URI."""
    return f"data:image/svg+xml;base64,{base64.b64encode(image).decode()}"
