"""Results of a git revision, read through DVC's API: nothing is checked out."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import yaml
from dvc.api import DVCFileSystem
from dvc.exceptions import DvcException
from dvc.scm import RevError, SCMError

from distill.cards.document import flatten
from distill.core.errors import UserError
from distill.evaluation.metrics import metrics

ITEMS, METRICS, LATENCY = "metrics/items.csv", "metrics/metrics.json", "metrics/latency.json"
ENVIRONMENT = "metrics/environment"
LOCK = "dvc.lock"
COLUMNS = {"model", "item"} | {
    column for metric in metrics(0.0).values() for column in (metric.numerator, metric.denominator) if column
}
TEST = "data/clean/test.jsonl"


@dataclass(frozen=True)
class Revision:
    """The results of one revision.

    `items` has a row for each model, training seed and item; `table` is the main table. `params` has the values that
    its stages ran with by dotted path. `test` is the hash of the held-out rows, `sources` those of the files that
    stages read and none writes (code, prompts). `environment` has the manifests by stage.
    """

    name: str
    items: pd.DataFrame
    table: dict[str, Any]
    params: dict[str, Any]
    test: str
    sources: dict[str, str]
    environment: dict[str, Any]


def read(folder: Path, name: str | None) -> Revision:
    """The results of a branch, tag, commit or experiment; None is the working tree.

    Raises UserError if there is no such revision or it has no results.
    """
    label = name or "the working tree"
    try:
        files = DVCFileSystem(str(folder), rev=name)
        names = files.ls(ENVIRONMENT, detail=False) if files.isdir(ENVIRONMENT) else []
        text = {path: files.read_text(path, encoding="utf-8") for path in (ITEMS, METRICS, LOCK, *sorted(names))}
        with files.open(ITEMS) as file:
            items = pd.read_csv(file, dtype={"model": str, "item": str})
        if missing := sorted(COLUMNS - set(items)):
            raise UserError(
                f"{ITEMS} of {label} must have the columns of this code, got none named {', '.join(missing)}: older "
                f"code wrote it. Compare by that code (`git checkout {name or 'HEAD'}`), or run `dvc repro evaluate` "
                "there by this code and commit metrics/."
            )
        if "seed" not in items:  # of revisions before there were several training seeds
            items["seed"] = None
    except (RevError, SCMError) as error:
        raise UserError(
            f"REVISION must be a branch, tag, commit or experiment of this repository, got {label!r} ({error})."
        ) from None
    except FileNotFoundError as error:
        raise UserError(
            f"{label} has no {error.filename or error}: it has no results. Check it out, run `make repro`, and "
            "commit dvc.lock and metrics/."
        ) from None
    except DvcException as error:
        raise UserError(f"{label} cannot be read by DVC: {error}") from None
    lock = yaml.safe_load(text[LOCK])["stages"]
    params = locked_params(lock)
    if "data_seed" not in params:
        raise UserError(f"{label} must have data_seed in {LOCK}, got an older format. Run `dvc repro` there first.")
    return Revision(
        name=label,
        items=items,
        table=json.loads(text[METRICS]),
        params=params,
        test=next(dep["md5"] for dep in lock["evaluate"]["deps"] if dep["path"] == TEST),
        sources=locked_sources(lock),
        environment={Path(path).stem: json.loads(text[path]) for path in sorted(names)},
    )


def locked_params(lock: dict[str, Any]) -> dict[str, Any]:
    """The params that the stages of a dvc.lock ran with, by dotted path; params.yaml may be newer."""
    params: dict[str, Any] = {}
    for stage in lock.values():
        for path, value in stage.get("params", {}).get("params.yaml", {}).items():
            params |= flatten(value, path)
    return dict(sorted(params.items()))


def locked_sources(lock: dict[str, Any]) -> dict[str, str]:
    """The hash of each file that the stages of a dvc.lock read and that none of them writes: code and prompts.

    A stage writes the latency too, but it is no output since it differs from run to run.
    """
    written = {LATENCY} | {out["path"] for stage in lock.values() for out in stage.get("outs", ())}
    read = {dep["path"]: dep["md5"] for stage in lock.values() for dep in stage.get("deps", ())}
    parents = {str(parent) for path in written for parent in Path(path).parents}
    return {path: digest for path, digest in sorted(read.items()) if path not in written | parents}


def differences(first: dict[str, Any], second: dict[str, Any]) -> dict[str, tuple[Any, Any]]:
    """Both values of each dotted path whose values differ; None for a missing one."""
    paths = [*first, *(path for path in second if path not in first)]
    return {path: (first.get(path), second.get(path)) for path in paths if first.get(path) != second.get(path)}
