"""What a git revision holds of an experiment, read through DVC's API: nothing is checked out."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import yaml
from dvc.api import DVCFileSystem
from dvc.exceptions import DvcException
from dvc.scm import RevError, SCMError

from distill.cards.document import flat
from distill.core.errors import UserError

ITEMS, METRICS, LATENCY = "metrics/items.csv", "metrics/metrics.json", "metrics/latency.json"
ENVIRONMENT = "metrics/environment"
LOCK = "dvc.lock"
TEST = "data/clean/test.jsonl"


@dataclass(frozen=True)
class Revision:
    """The results of one revision.

    `items` has a row for each model, training seed and item, `params` the dotted paths that its stages were run
    with, `test` the hash of the held-out rows, `sources` that of every file that stages read and none writes (code,
    prompts), `environment` the manifests by stage.
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

    Raises UserError where there is no such revision or it has no results.
    """
    shown = name or "the working tree"
    try:
        files = DVCFileSystem(str(folder), rev=name)
        names = files.ls(ENVIRONMENT, detail=False) if files.isdir(ENVIRONMENT) else []
        text = {path: files.read_text(path, encoding="utf-8") for path in (ITEMS, METRICS, LOCK, *sorted(names))}
        with files.open(ITEMS) as file:
            items = pd.read_csv(file, dtype={"model": str, "item": str})
        if "seed" not in items:  # of a time when every model was trained once
            items["seed"] = None
    except (RevError, SCMError) as error:
        raise UserError(f"{shown!r} is no branch, tag, commit or experiment of this repository ({error}).") from None
    except FileNotFoundError as error:
        raise UserError(
            f"{shown} has no {error.filename or error}: it has no results. Check it out, run `make repro`, and "
            "commit dvc.lock and metrics/ with it."
        ) from None
    except DvcException as error:
        raise UserError(f"{shown} cannot be read by DVC: {error}") from None
    lock = yaml.safe_load(text[LOCK])["stages"]
    return Revision(
        name=shown,
        items=items,
        table=json.loads(text[METRICS]),
        params=locked_params(lock),
        test=next(dep["md5"] for dep in lock["evaluate"]["deps"] if dep["path"] == TEST),
        sources=locked_sources(lock),
        environment={Path(path).stem: json.loads(text[path]) for path in sorted(names)},
    )


def locked_params(lock: dict[str, Any]) -> dict[str, Any]:
    """The params that the stages of a dvc.lock were run with, by dotted path: what params.yaml says may be newer."""
    found: dict[str, Any] = {}
    for stage in lock.values():
        for path, value in stage.get("params", {}).get("params.yaml", {}).items():
            found |= flat(value, path)
    return dict(sorted(found.items()))


def locked_sources(lock: dict[str, Any]) -> dict[str, str]:
    """The hash of each file that the stages of a dvc.lock read and that none of them writes: code and prompts.

    The latency is written by a stage too, though it is no output, as it differs from run to run.
    """
    written = {LATENCY} | {out["path"] for stage in lock.values() for out in stage.get("outs", ())}
    read = {dep["path"]: dep["md5"] for stage in lock.values() for dep in stage.get("deps", ())}
    parents = {str(parent) for path in written for parent in Path(path).parents}
    return {path: digest for path, digest in sorted(read.items()) if path not in written | parents}


def differences(one: dict[str, Any], other: dict[str, Any]) -> dict[str, tuple[Any, Any]]:
    """The dotted paths whose values differ, with both; None for one that is not there."""
    paths = [*one, *(path for path in other if path not in one)]
    return {path: (one.get(path), other.get(path)) for path in paths if one.get(path) != other.get(path)}
