"""A clone of HEAD without its outputs, and the run of its pipeline there."""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from dvc.api import DVCFileSystem
from dvc.exceptions import DvcException

from distill.core.errors import UserError
from distill.core.files import write_json, write_text
from distill.core.home import VARIABLE
from distill.evaluation.goals import GOALS
from distill.modeling import environment
from distill.params.schema import Params

LOCK, PIPELINE = "dvc.lock", "dvc.yaml"
LATENCY, TABLE = Path("metrics/latency.json"), Path("metrics/metrics.json")
GENERATE = "generate"
HALF_DIGIT = 0.051  # latency_gain has one digit in the table and three in latency.json

Lock = dict[str, Any]


def git(folder: Path, *arguments: str) -> bytes:
    """The output of a git command. Raises UserError if it fails."""
    done = subprocess.run(["git", *arguments], cwd=folder, capture_output=True, check=False)
    if done.returncode:
        raise UserError(f"git {' '.join(arguments)} failed: {done.stderr.decode(errors='replace').strip()}")
    return done.stdout


def committed(root: Path, commit: str, path: str) -> bytes | None:
    """The file in the commit, or None if git does not track it."""
    if not git(root, "ls-tree", commit, "--", path):
        return None
    return git(root, "show", f"{commit}:{path}")


def outputs(lock: Lock) -> dict[str, dict[str, str]]:
    """Hash of every output by stage and path."""
    return {name: {out["path"]: out["md5"] for out in stage.get("outs", [])} for name, stage in lock["stages"].items()}


def clone(root: Path, commit: str, folder: Path) -> None:
    """Clones the commit into the folder."""
    git(root, "clone", "--quiet", "--no-checkout", str(root), str(folder))
    git(folder, "checkout", "--quiet", "--detach", commit)


def edited_outputs(folder: Path, variables: Mapping[str, str]) -> set[str]:
    """Outputs in git that differ from their hash in dvc.lock, in a new clone. Raises UserError if DVC fails."""
    status = dvc(folder, variables, "status", "--json")
    changes = [change for stage in json.loads(status).values() for change in stage if isinstance(change, dict)]
    outs = {path: state for change in changes for path, state in change.get("changed outs", {}).items()}
    return {path for path, state in outs.items() if state == "modified"}


def remove_outputs(lock: Lock, folder: Path) -> None:
    """Removes everything that the stages write from the clone."""
    paths = [Path(path) for stage in outputs(lock).values() for path in stage]
    for path in (*paths, LATENCY, environment.FOLDER, Path(LOCK)):
        remove(folder / path)


def remove(path: Path) -> None:
    """Removes a file or a folder if it exists."""
    if path.is_dir():
        shutil.rmtree(path)
    path.unlink(missing_ok=True)


def copy_journals(params: Params, source: Path, target: Path) -> list[str]:
    """Copies the journals of endpoints and returns the teachers without one."""
    target.mkdir(parents=True)
    missing = []
    for teacher in params.teachers:
        if teacher.kind != "local":
            journals = [path for path in source.glob(f"{teacher.name}-*.jsonl") if is_journal_of(path, teacher.name)]
            missing += [] if journals else [teacher.name]
            for path in journals:
                shutil.copy2(path, target)
    return missing


def replay(root: Path, commit: str, lock: Lock, folder: Path) -> None:
    """Copies the outputs of generate into the clone, from git and from DVC's cache or remote, and freezes that stage.

    Raises UserError if DVC has them nowhere, since a verification must cost nothing.
    """
    for path in outputs(lock)[GENERATE]:
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        file = committed(root, commit, path)
        if file is not None:
            (folder / path).write_bytes(file)
            continue
        try:
            DVCFileSystem(str(root), rev=commit).get_file(path, str(folder / path))
        except (DvcException, OSError) as error:
            raise UserError(
                f"{path} is neither in DVC's cache nor in its remote ({error}), and the journals of its teachers are "
                "missing. A verification queries no endpoint. Run it on the machine that has the journals, set "
                f"{VARIABLE} to a copy of that machine's .distill, or run `dvc push` there."
            ) from None
    pipeline = yaml.safe_load((folder / PIPELINE).read_text(encoding="utf-8"))
    pipeline["stages"][GENERATE]["frozen"] = True  # `dvc freeze` refuses a stage with `${...}` in it
    write_text(folder / PIPELINE, yaml.safe_dump(pipeline, sort_keys=False))


def is_journal_of(path: Path, teacher: str) -> bool:
    """Whether the file is a journal of this teacher, and not of one whose name has the same beginning."""
    return re.fullmatch(rf"{re.escape(teacher)}-[0-9a-f]{{16}}\.jsonl", path.name) is not None


def other_environment(variables: Mapping[str, str], params: Params, folder: Path) -> dict[str, str]:
    """Environment of the run in the clone: without API keys, with other values of what must not matter."""
    keys = {teacher.api_key_env for teacher in params.teachers if teacher.kind != "local"}
    kept = {name: value for name, value in variables.items() if name not in keys}
    return kept | {
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{variables.get('PATH', '')}",
        "PYTHONHASHSEED": "2" if variables.get("PYTHONHASHSEED") == "1" else "1",
        "TZ": "OTHER-13:45" if variables.get("TZ") != "OTHER-13:45" else "UTC",
        "PYTHONDONTWRITEBYTECODE": "1",
        VARIABLE: str(folder),
    }


def dvc(folder: Path, variables: Mapping[str, str], *arguments: str) -> str:
    """Runs DVC in the clone and returns what it prints; `repro` prints at once. Raises UserError if it fails."""
    output = None if arguments[0] == "repro" else subprocess.PIPE
    command = [sys.executable, "-m", "dvc", *arguments]
    done = subprocess.run(command, cwd=folder, env=variables, stdout=output, text=True, check=False)
    if done.returncode:
        raise UserError(f"`dvc {' '.join(arguments)}` failed in {folder}, which is kept; its message is above.")
    return done.stdout or ""


def with_latency(table: dict[str, Any], head_table: dict[str, Any], head_latency: dict[str, Any]) -> dict[str, Any]:
    """The new table with HEAD's latency gain, if HEAD's own latency.json supports it."""
    gain, measured = head_table["goals"]["latency_gain"], head_latency["latency_gain"]
    goals = table["goals"] | {"latency_gain": gain if abs(gain - measured) <= HALF_DIGIT else round(measured, 1)}
    goals["met"] = sum(goal.met(goals[goal.name]) for goal in GOALS)
    return table | {"goals": goals}


def reproduce(root: Path, commit: str, folder: Path, variables: dict[str, str], targets: list[str]) -> None:
    """Runs the targets (default: all stages) in the clone, then again with HEAD's latency."""
    dvc(folder, variables, "repro", "--no-run-cache", *targets)
    latency, table = (committed(root, commit, str(path)) for path in (LATENCY, TABLE))
    if (folder / LATENCY).exists() and latency is not None and table is not None:
        (folder / LATENCY).write_bytes(latency)
        new_table = json.loads((folder / TABLE).read_bytes())
        write_json(folder / TABLE, with_latency(new_table, json.loads(table), json.loads(latency)))
        dvc(folder, variables, "commit", "--quiet", "--force", "evaluate")
        dvc(folder, variables, "repro", "--no-run-cache", *targets)
