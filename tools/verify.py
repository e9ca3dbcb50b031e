"""Runs HEAD's experiment again from nothing and compares every output: `python -m tools.verify`.

HEAD is cloned into another folder with a cache of its own, another PYTHONHASHSEED and another time zone, without
any of its outputs. Local teachers answer anew; endpoints are never asked: their answers come from the journal.
Then each output's hash is compared with HEAD's dvc.lock and with the file that HEAD has committed.

Time cannot be repeated, so latency is the one thing that is not compared: when the clone has measured its own,
HEAD's latency is put in its place, and what is drawn from it is drawn again, so that all the rest of it counts.

Writes metrics/verify.json. Exit code 1 where an output differs; the clone is kept then, to be looked at.
"""

import argparse
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from dvc.api import DVCFileSystem
from dvc.exceptions import DvcException

from distill.core.errors import UserError, run_main
from distill.core.files import write_json, write_text
from distill.core.home import VARIABLE, home
from distill.evaluation.goals import GOALS
from distill.modeling import environment
from distill.params import loading as params_file
from distill.params.schema import Params

LOCK, PIPELINE = "dvc.lock", "dvc.yaml"
LATENCY, TABLE = Path("metrics/latency.json"), Path("metrics/metrics.json")
RECORD = Path("metrics/verify.json")
GENERATE = "generate"
SAME, DIFFERENT, REPLAYED = "same", "different", "replayed"
HALF_DIGIT = 0.051  # latency_gain has one digit in the table and three in latency.json

Lock = dict[str, Any]


def git(folder: Path, *arguments: str) -> bytes:
    """What git prints. Raises UserError where it fails."""
    done = subprocess.run(["git", *arguments], cwd=folder, capture_output=True, check=False)
    if done.returncode:
        raise UserError(f"git {' '.join(arguments)} failed: {done.stderr.decode(errors='replace').strip()}")
    return done.stdout


def committed(root: Path, commit: str, path: str) -> bytes | None:
    """The file as the commit has it, or None where git does not track it."""
    if not git(root, "ls-tree", commit, "--", path):
        return None
    return git(root, "show", f"{commit}:{path}")


def committed_hash(root: Path, commit: str, path: str) -> str | None:
    """The hash that DVC would give to the file or folder as the commit has it; None where git does not track it."""
    names = git(root, "ls-tree", "-r", "-z", "--name-only", commit, "--", path).decode().split("\0")[:-1]
    hashes = {name: hashlib.md5(git(root, "show", f"{commit}:{name}"), usedforsecurity=False) for name in names}
    if path in hashes or not hashes:
        return hashes[path].hexdigest() if hashes else None
    entries = [{"md5": hashes[name].hexdigest(), "relpath": name.removeprefix(f"{path}/")} for name in names]
    listing = json.dumps(sorted(entries, key=lambda entry: entry["relpath"]), sort_keys=True)
    return f"{hashlib.md5(listing.encode(), usedforsecurity=False).hexdigest()}.dir"


def outputs(lock: Lock) -> dict[str, dict[str, str]]:
    """The hash of every output by stage and path, as a dvc.lock has them."""
    return {name: {out["path"]: out["md5"] for out in stage.get("outs", [])} for name, stage in lock["stages"].items()}


def bare_clone_of(root: Path, commit: str, lock: Lock, folder: Path) -> None:
    """Clones the commit into `folder` and removes all that its stages write."""
    git(root, "clone", "--quiet", "--no-checkout", str(root), str(folder))
    git(folder, "checkout", "--quiet", "--detach", commit)
    made = [Path(path) for paths in outputs(lock).values() for path in paths]
    for path in (*made, LATENCY, environment.FOLDER, Path(LOCK)):
        remove(folder / path)


def remove(path: Path) -> None:
    """Removes a file or a folder where there is one."""
    if path.is_dir():
        shutil.rmtree(path)
    path.unlink(missing_ok=True)


def copy_answers(params: Params, source: Path, target: Path) -> list[str]:
    """Copies the journals of endpoints; returns the teachers that have none here."""
    target.mkdir(parents=True)
    missing = []
    for teacher in params.teachers:
        if teacher.kind != "local":
            found = [path for path in source.glob(f"{teacher.name}-*.jsonl") if own_journal(path, teacher.name)]
            missing += [] if found else [teacher.name]
            for path in found:
                shutil.copy2(path, target)
    return missing


def replay(root: Path, commit: str, lock: Lock, folder: Path) -> None:
    """Puts what generate wrote into the clone, from git and from DVC's cache or remote, and freezes that stage.

    Raises UserError where DVC has it nowhere: verifying must not cost anything.
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
                f"{path} is neither in DVC's cache nor in its remote ({error}), the journals of its teachers are not "
                "here, and to verify nobody is asked anew. Run this where they were asked, point "
                f"{VARIABLE} to a copy of that machine's .distill, or run `dvc push` there."
            ) from None
    pipeline = yaml.safe_load((folder / PIPELINE).read_text(encoding="utf-8"))
    pipeline["stages"][GENERATE]["frozen"] = True  # `dvc freeze` refuses a stage with `${...}` in it
    write_text(folder / PIPELINE, yaml.safe_dump(pipeline, sort_keys=False))


def own_journal(path: Path, teacher: str) -> bool:
    """Whether the file is a journal of this teacher, not of another whose name begins alike."""
    return re.fullmatch(rf"{re.escape(teacher)}-[0-9a-f]{{16}}\.jsonl", path.name) is not None


def other_surroundings(mine: Mapping[str, str], params: Params, folder: Path) -> dict[str, str]:
    """The environment of the run in the clone: no key of an endpoint, and other values of what must not matter."""
    keys = {teacher.api_key_env for teacher in params.teachers if teacher.kind != "local"}
    kept = {name: value for name, value in mine.items() if name not in keys}
    return kept | {
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{mine.get('PATH', '')}",
        "PYTHONHASHSEED": "2" if mine.get("PYTHONHASHSEED") == "1" else "1",
        "TZ": "OTHER-13:45" if mine.get("TZ") != "OTHER-13:45" else "UTC",
        "PYTHONDONTWRITEBYTECODE": "1",
        VARIABLE: str(folder),
    }


def dvc(folder: Path, surroundings: dict[str, str], *arguments: str) -> None:
    """Runs DVC in the clone. Raises UserError where it fails."""
    done = subprocess.run([sys.executable, "-m", "dvc", *arguments], cwd=folder, env=surroundings, check=False)
    if done.returncode:
        raise UserError(f"`dvc {' '.join(arguments)}` failed in {folder}, which is kept; its message is above.")


def with_timing(table: dict[str, Any], head_table: dict[str, Any], head_latency: dict[str, Any]) -> dict[str, Any]:
    """The table made anew with HEAD's latency gain, as far as HEAD's own latency.json bears it out."""
    gain, measured = head_table["goals"]["latency_gain"], head_latency["latency_gain"]
    goals = table["goals"] | {"latency_gain": gain if abs(gain - measured) <= HALF_DIGIT else round(measured, 1)}
    goals["met"] = sum(goal.met(goals[goal.name]) for goal in GOALS)
    return table | {"goals": goals}


def repeat(root: Path, commit: str, folder: Path, surroundings: dict[str, str], targets: list[str]) -> None:
    """Reproduces the targets (all stages for none) in the clone, then once more with HEAD's timing."""
    dvc(folder, surroundings, "repro", "--no-run-cache", *targets)
    latency, table = (committed(root, commit, str(path)) for path in (LATENCY, TABLE))
    if (folder / LATENCY).exists() and latency is not None and table is not None:
        (folder / LATENCY).write_bytes(latency)
        anew = json.loads((folder / TABLE).read_bytes())
        write_json(folder / TABLE, with_timing(anew, json.loads(table), json.loads(latency)))
        dvc(folder, surroundings, "commit", "--quiet", "--force", "evaluate")
        dvc(folder, surroundings, "repro", "--no-run-cache", *targets)


def compared(root: Path, commit: str, lock: Lock, anew: Lock, replayed: bool = False) -> dict[str, str]:
    """Same or different for each output of the stages that ran anew: by dvc.lock, and by the file in git.

    Answers that were `replayed` were not made anew: they are called so where they are the same.
    """
    before, after = outputs(lock), outputs(anew)
    result = {}
    for stage in after:
        for path in {**before.get(stage, {}), **after[stage]}:
            digest = after[stage].get(path)
            in_git = committed_hash(root, commit, path)
            same = digest == before.get(stage, {}).get(path)
            same = same and in_git in (None, digest)
            alike = REPLAYED if replayed and stage == GENERATE else SAME
            result[f"{stage}/{path}"] = alike if same else DIFFERENT
    return result


def show(result: dict[str, str]) -> None:
    """Prints the outputs stage by stage."""
    for stage in dict.fromkeys(name.partition("/")[0] for name in result):
        print(stage)
        for name, word in result.items():
            if name.partition("/")[0] == stage:
                print(f"  {word:10} {name.partition('/')[2]}")
    count = list(result.values()).count(DIFFERENT)
    print(f"{len(result)} outputs, {count or 'none'} different (latency is measured anew each time and not compared)")


def warn_of_environment(root: Path, commit: str, manifest: dict[str, Any]) -> None:
    """Says where HEAD's results were made in another environment: a difference may have that reason alone."""
    for path in git(root, "ls-tree", "--name-only", commit, f"{environment.FOLDER}/").decode().splitlines():
        theirs = json.loads(git(root, "show", f"{commit}:{path}"))
        parts = [key for key in manifest if theirs.get(key) != manifest[key]]
        if parts:
            print(f"warning: HEAD's {Path(path).stem} ran in another environment: {', '.join(parts)} differ")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition(":")[0])
    parser.add_argument("stages", nargs="*", metavar="STAGE", help="these and what they need; all stages by default")
    targets = parser.parse_args().stages
    root = Path.cwd()
    commit = git(root, "rev-parse", "HEAD").decode().strip()
    text = committed(root, commit, LOCK)
    if text is None:
        raise UserError(f"HEAD has no {LOCK}: there is no result to verify. Run `make repro` and commit what it wrote.")
    lock = yaml.safe_load(text)
    params = params_file.check(yaml.safe_load(git(root, "show", f"{commit}:{params_file.PATH}")))
    manifest = environment.manifest(params.runtime)
    if git(root, "status", "--porcelain", "--untracked-files=no"):
        print("note: what is not committed is not verified")
    warn_of_environment(root, commit, manifest)
    outside = Path(tempfile.mkdtemp(prefix="verify-"))
    folder = outside / "repository"
    print(f"verifying {commit[:10]} in {folder}", flush=True)
    journals = home(os.environ, root) / "journal"
    missing = copy_answers(params, journals, outside / "home/journal")
    bare_clone_of(root, commit, lock, folder)
    surroundings = other_surroundings(os.environ, params, outside / "home")
    dvc(folder, surroundings, "cache", "dir", "--local", str(outside / "cache"))
    if missing:
        print(f"replayed, not proved: {journals} has no answers of {', '.join(missing)}, so that DVC's are taken")
        replay(root, commit, lock, folder)
    repeat(root, commit, folder, surroundings, targets)
    result = compared(root, commit, lock, yaml.safe_load((folder / LOCK).read_text(encoding="utf-8")), bool(missing))
    write_json(root / RECORD, {"commit": commit, "environment": manifest, "outputs": result})
    show(result)
    if DIFFERENT in result.values():
        raise UserError(f"not reproduced. The run that differs is kept in {folder}.")
    shutil.rmtree(outside)


if __name__ == "__main__":
    run_main(main)
