"""Inputs of a report: the files of earlier stages, each checked for the values that the report needs."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from distill.cards.data_card import QUANTILES
from distill.core.errors import UserError
from distill.core.files import read_json, read_rows
from distill.evaluation.goals import GOALS
from distill.reporting import methods_table
from distill.reporting.score_tables import ESTIMATE, MODELS, SCORES
from distill.students.runs import Run

Row = dict[str, Any]
QUARTILES = ("low", "high", "median")
TIMINGS = ("time_to_first_token_ms", "decode_tokens_per_s", "response_ms")
SCORE_COLUMNS = ("accuracy", "accuracy_ci_low", "accuracy_ci_high", "perplexity", "top1_agreement", "rouge_l")
RESPONSE = ("reference", "messages.-1.content")
# dotted paths of the numbers and the texts that a report needs of each file
NUMBERS = {
    "metrics": [f"{model}.{column}" for model in MODELS for column in (*SCORE_COLUMNS, "parameters", "bytes")]
    + [f"goals.{name}" for name in (*(goal.name for goal in GOALS), "accuracy_ratio_above_chance", "met")],
    "evaluate": [f"models.{model}.{score}.{key}" for model in MODELS for score in SCORES for key in ESTIMATE]
    + ["items", "held_out", "generations"],
    "latency": ["prompt_tokens", "new_tokens", "num_runs"]
    + [f"models.{model}.{timing}.{key}" for model in MODELS for timing in TIMINGS for key in QUARTILES],
    "clean": ["requested", "kept", "dropped"]
    + [f"splits.{split}.{key}" for split in ("train", "validation", "test") for key in ("topics", "rows", "words")],
    "weight": ["ess_fraction", "strength"]
    + [f"{quantity}.{key}" for quantity in ("words", "weights") for key in (*QUANTILES, "mean")],
    "record": ["parameters", "steps", "response_tokens"],
    "regressions": ["teacher_nll", "distilled_nll", "tokens"],
    "rows": ["weight"],
}
TEXTS: dict[str, list[str]] = {
    "weight": ["kind"],
    "record": ["source", "loss"],
    "samples": [*RESPONSE, *(f"generated.{model}" for model in MODELS)],
    "regressions": [*RESPONSE],
    "rows": ["id", "prompt_id", "topic", "teacher", "messages.-1.content", "response"],
}
LOG_COLUMNS = ["step", "epoch", "split", "loss", "phase"]


@dataclass(frozen=True)
class Source:
    """A file and the stage that writes it."""

    path: Path
    stage: str


@dataclass(frozen=True)
class Inputs:
    """The metrics of stages by name, the `record` of the distilled run, and rows of JSONL and CSV files.

    `samples` and `regressions` are held-out prompts with the models' responses, `rows` the training data.
    """

    metrics: Row
    evaluate: Row
    latency: Row
    clean: Row
    weight: Row
    record: Row
    samples: list[Row]
    regressions: list[Row]
    methods: list[Row]
    rows: list[Row]


def read_inputs(sources: Mapping[str, Source], methods: Path, num_samples: int) -> Inputs:
    """Reads the sources, named as the fields of Inputs, and the table of methods.

    UserError names the stage whose file is at fault.
    """
    values = {
        name: read_checked(name, sources[name])
        for name in ("metrics", "evaluate", "latency", "clean", "weight", "record")
    }
    clean = sources["clean"]
    reasons = lookup(values["clean"], "reasons") or ["*"]
    require(values["clean"], clean.path, clean.stage, [f"reasons.{reason}" for reason in reasons])
    tables: dict[str, Any] = {name: read_table(name, sources[name]) for name in ("samples", "regressions", "rows")}
    if not tables["rows"]:
        raise UserError(
            f"{sources['rows'].path} has no rows. Stage weight writes it; metrics/clean.json has the reasons for "
            "dropping."
        )
    tables["samples"] = tables["samples"][:num_samples]
    return Inputs(**values, **tables, methods=methods_table.read(methods))


def read_checked(name: str, source: Source) -> Any:
    """The value of a JSON file that has the numbers and texts which the report needs of it."""
    value = read_json(source.path, f"stage {source.stage}")
    require(value, source.path, source.stage, NUMBERS[name], TEXTS.get(name, ()))
    return value


def read_table(name: str, source: Source) -> list[Row]:
    """The rows of a JSONL file, each with the numbers and texts that the report needs of it."""
    rows = list(read_rows(source.path, f"stage {source.stage}"))
    for number, row in enumerate(rows, start=1):
        require(row, f"{source.path}, line {number},", source.stage, NUMBERS.get(name, ()), TEXTS[name])
    return rows


def read_log(run: Run) -> pd.DataFrame:
    """The losses of a run by step, variant, phase, split, epoch. UserError if the file is missing or broken."""
    path = run.record.with_name(f"{run.name}_log.csv")
    advice = f"Stage {run.stage} writes it. Run `dvc repro {run.stage}`."
    if not path.exists():
        raise UserError(f"{path} is missing. {advice}")
    try:
        log = pd.read_csv(path)[LOG_COLUMNS].astype({"epoch": float, "loss": float})
    except (ValueError, KeyError) as error:
        raise UserError(
            f"{path} must be a table of {', '.join(LOG_COLUMNS)}, got: {str(error)[:100]}. {advice}"
        ) from None
    if log.empty or not np.isfinite(log[["epoch", "loss"]]).all(axis=None):
        raise UserError(f"{path} must have losses, all of them finite. {advice}")
    return log.assign(variant=run.variant)[["step", "variant", "phase", "split", "epoch", "loss"]]


def require(value: Any, path: object, stage: str, numbers: Iterable[str] = (), texts: Iterable[str] = ()) -> None:
    """Raises UserError if a dotted path leads to no finite number, or no text, in the value read from `path`."""
    for kind, dotted_paths in (("number", numbers), ("text", texts)):
        for dotted in dotted_paths:
            leaf = lookup(value, dotted)
            is_number = isinstance(leaf, int | float) and not isinstance(leaf, bool) and math.isfinite(leaf)
            if not (is_number if kind == "number" else isinstance(leaf, str)):
                raise UserError(
                    f"{path} must have a {kind} at {dotted}, got {str(leaf)[:60]!r}. Stage {stage} writes it. Run "
                    f"`dvc repro --force --single-item {stage}`."
                )


def lookup(value: Any, dotted: str) -> Any:
    """The value at `messages.-1.content` in mappings and lists, None if there is none."""
    for key in dotted.split("."):
        try:
            value = value[int(key)] if isinstance(value, list) else value[key]
        except (KeyError, IndexError, TypeError, ValueError):
            return None
    return value
