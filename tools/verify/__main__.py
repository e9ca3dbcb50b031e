"""Run HEAD's experiment again from nothing and compare every output: `python -m tools.verify`.

HEAD is cloned into another folder without its outputs, with its own cache, another PYTHONHASHSEED and another time
zone. Local teachers generate again. Endpoints are never queried: their responses come from the journal. Each output's
hash is then compared with HEAD's dvc.lock, and HEAD's lock with the files that HEAD has committed.

Latency cannot be repeated, so it is not compared. After the clone has measured its own, HEAD's latency replaces it, and
what depends on it is made again, so that everything else is compared.

Writes metrics/verify.json. The exit code is 1 if an output differs; the clone is then kept.
"""

import argparse
import json
import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

import yaml

from distill.core.errors import UserError, run_main
from distill.core.files import write_json
from distill.core.home import home
from distill.modeling import environment
from distill.params.loading import PATH, check_params
from distill.params.schema import Params
from tools.verify.clone import (
    GENERATE,
    LOCK,
    Lock,
    clone,
    committed,
    copy_journals,
    dvc,
    edited_outputs,
    git,
    other_environment,
    outputs,
    remove_outputs,
    replay,
    reproduce,
)

RECORD = Path("metrics/verify.json")
SAME, DIFFERENT, REPLAYED = "same", "different", "replayed"


def compare_outputs(lock: Lock, new_lock: Lock, edited: set[str], replayed: bool = False) -> dict[str, str]:
    """Same or different for each output of the stages that ran again.

    `edited` outputs, which differ from HEAD's own dvc.lock in git, are different. If responses were `replayed`, the
    outputs of generate are called so in place of same.
    """
    before, after = outputs(lock), outputs(new_lock)
    result = {}
    for stage in after:
        for path in {**before.get(stage, {}), **after[stage]}:
            same = after[stage].get(path) == before.get(stage, {}).get(path) and path not in edited
            word = REPLAYED if replayed and stage == GENERATE else SAME
            result[f"{stage}/{path}"] = word if same else DIFFERENT
    return result


def show(result: dict[str, str]) -> None:
    """Prints the outputs by stage."""
    for stage in dict.fromkeys(name.partition("/")[0] for name in result):
        print(stage)
        for name, word in result.items():
            if name.partition("/")[0] == stage:
                print(f"  {word:10} {name.partition('/')[2]}")
    count = list(result.values()).count(DIFFERENT)
    print(f"{len(result)} outputs, {count or 'none'} different (latency differs in each run and is not compared)")


def warn_of_environment(root: Path, commit: str, manifest: dict[str, Any]) -> None:
    """Prints where HEAD's results come from another environment, which alone may explain a difference."""
    for path in git(root, "ls-tree", "--name-only", commit, f"{environment.FOLDER}/").decode().splitlines():
        committed_manifest = json.loads(git(root, "show", f"{commit}:{path}"))
        keys = [key for key in manifest if committed_manifest.get(key) != manifest[key]]
        if keys:
            print(f"warning: HEAD's {Path(path).stem} ran in another environment: {', '.join(keys)} differ")


def repeat_head(root: Path, commit: str, params: Params, targets: list[str], outside: Path) -> dict[str, str]:
    """Runs the commit's experiment in the folder `outside` and compares its outputs. Raises UserError if it fails."""
    text = committed(root, commit, LOCK)
    if text is None:
        raise UserError(f"HEAD has no {LOCK}, so there is nothing to verify. Run `make repro` and commit its outputs.")
    lock = yaml.safe_load(text)
    folder = outside / "repository"
    journals = home(os.environ, root) / "journal"
    missing = copy_journals(params, journals, outside / "home/journal")
    variables = other_environment(os.environ, params, outside / "home")
    clone(root, commit, folder)
    dvc(folder, variables, "cache", "dir", "--local", str(outside / "cache"))
    edited = edited_outputs(folder, variables)
    remove_outputs(lock, folder)
    if missing:
        print(f"replayed: {journals} has no responses of {', '.join(missing)}, so those of DVC are used")
        replay(root, commit, lock, folder)
    reproduce(root, commit, folder, variables, targets)
    new_lock = yaml.safe_load((folder / LOCK).read_text(encoding="utf-8"))
    return compare_outputs(lock, new_lock, edited, bool(missing))


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tools.verify", description=(__doc__ or "").partition(":")[0] + ".")
    parser.add_argument("stages", nargs="*", metavar="STAGE", help="with the stages that they need (default: all)")
    targets = parser.parse_args().stages
    root = Path.cwd()
    commit = git(root, "rev-parse", "HEAD").decode().strip()
    params = check_params(yaml.safe_load(git(root, "show", f"{commit}:{PATH}")))
    manifest = environment.manifest(params.runtime)
    if git(root, "status", "--porcelain", "--untracked-files=no"):
        print("note: uncommitted changes are not verified")
    warn_of_environment(root, commit, manifest)
    outside = Path(tempfile.mkdtemp(prefix="verify-"))
    print(f"verifying {commit[:10]} in {outside}", flush=True)
    result = repeat_head(root, commit, params, targets, outside)
    write_json(root / RECORD, {"commit": commit, "environment": manifest, "outputs": result})
    show(result)
    if DIFFERENT in result.values():
        raise UserError(f"not reproduced. The clone is kept in {outside}.")
    shutil.rmtree(outside)


if __name__ == "__main__":
    run_main(main)
