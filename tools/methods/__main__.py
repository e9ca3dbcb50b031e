"""Compares methods on a reduced profile of the default data: `python -m tools.methods [METHOD ...]`.

Each method of experiments/methods.yaml is a set of changes to params.yaml. HEAD is cloned into .distill/methods, as
often as methods are measured at a time; the pipeline trains each method's student there with every seed (DVC makes anew
what a change touches and no more), and the students are measured on the same held-out answers as stage evaluate does
it. Scores are means over the seeds, the 95% intervals from a bootstrap over items and seeds. Killed and run again, it
goes on behind the last student of each method.

Writes metrics/methods.csv (every score with its interval) and metrics/methods.md (the table).
"""

import argparse
import os
import shutil
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor, as_completed
from functools import partial
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import datasets
import pandas as pd
import yaml
from tqdm import tqdm

from distill.cards import markdown
from distill.core.errors import UserError, run_main
from distill.core.files import atomic_file, write_text
from distill.core.home import home
from distill.evaluation.cache import cached
from distill.modeling import runtime
from distill.params import loading as params_file
from distill.reporting import methods_table
from tools.methods.plan import METHODS, Method, Row, methods
from tools.methods.scores import lines
from tools.methods.student import trained
from tools.verify import git

CSV, TABLE = Path("metrics/methods.csv"), Path("metrics/methods.md")
LAST_LINES = 15  # of the log of a method that failed, shown


def results(root: Path) -> Path:
    """Where the measured students and the logs are."""
    return home(os.environ, root).absolute() / "methods" / "measured"


def repository(root: Path, commit: str, place: int) -> Path:
    """HEAD's clone of this place, the one that an earlier call left where there is one."""
    folder = results(root).with_name(f"{commit[:10]}-{place}")
    if not folder.exists():
        new = folder.with_suffix(".new")
        shutil.rmtree(new, ignore_errors=True)
        git(root, "clone", "--quiet", "--no-checkout", str(root), str(new))
        git(new, "checkout", "--quiet", "--detach", commit)
        new.rename(folder)
    return folder


def key_of(commit: str, method: Method, seed: int) -> Row:
    """All that a student and its scores depend on."""
    return {"commit": commit, "params": method.raw, "variant": method.variant, "seed": seed}


def measure(compared: list[Method], seeds: list[int], place: int, root: Path, commit: str) -> None:
    """Trains and measures students in the clone of this place, those that have not been before."""
    folder = repository(root, commit, place)
    datasets.disable_progress_bars()
    runtime.prepare(compared[0].params.runtime.threads, compared[0].params.seed)
    ready: set[str] = set()
    for method in compared:
        for seed in seeds:
            print(f"{method.name}, seed {seed}", flush=True)
            make = partial(trained, folder, method, ready, seed)
            cached(results(root), method.name, key_of(commit, method, seed), make)


def at_once(compared: list[Method], jobs: int, root: Path) -> None:
    """Measures so many methods at a time, each in a process of its own, with a log of its own.

    Raises UserError with the end of the log of one that fails; those that run then are waited for and kept.
    """
    free: SimpleQueue[int] = SimpleQueue()
    for place in range(jobs):
        free.put(place)

    def one(method: Method) -> str:
        place, started = free.get(), time.monotonic()
        log = results(root) / f"{method.name}.log"
        with log.open("w", encoding="utf-8") as file:
            command = [sys.executable, "-m", "tools.methods", "--place", str(place), method.name]
            done = subprocess.run(command, stdout=file, stderr=subprocess.STDOUT, check=False)
        free.put(place)
        if done.returncode:
            end = "\n".join(log.read_text(encoding="utf-8", errors="replace").splitlines()[-LAST_LINES:])
            raise UserError(f"{method.name} failed; the end of {log}:\n{end}")
        return f"{method.name}: {(time.monotonic() - started) / 60:.1f} minutes"

    results(root).mkdir(parents=True, exist_ok=True)
    print(f"{len(compared)} methods, {jobs} at a time; logs are in {results(root)}", flush=True)
    with ThreadPoolExecutor(jobs) as pool:
        running = [pool.submit(one, method) for method in compared]
        try:
            for finished in tqdm(as_completed(running), total=len(running), unit="method"):
                tqdm.write(finished.result())
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition(":")[0])
    parser.add_argument("methods", nargs="*", metavar="METHOD", help="these; all of the file by default")
    parser.add_argument("--jobs", type=int, help="methods at a time; as many as there are processors for by default")
    parser.add_argument("--place", type=int, help=argparse.SUPPRESS)  # a process of `at_once`, with its clone
    given = parser.parse_args()
    root = Path.cwd()
    plan = yaml.safe_load(METHODS.read_text(encoding="utf-8"))
    base = yaml.safe_load(params_file.PATH.read_text(encoding="utf-8"))
    compared = methods(base, plan, given.methods)
    commit = git(root, "rev-parse", "HEAD").decode().strip()
    if given.place is not None:
        measure(compared, plan["seeds"], given.place, root, commit)
        return
    jobs = given.jobs
    if jobs is None:
        jobs = max((os.cpu_count() or 1) // compared[0].params.runtime.threads, 1)
    if jobs < 1:
        raise UserError(f"--jobs must be at least 1, given {jobs}.")
    if git(root, "status", "--porcelain", "--untracked-files=no"):
        print("note: params.yaml and the list of methods are read from here, the code is HEAD's")
    at_once(compared, jobs, root)
    found = {
        method.name: [
            cached(results(root), method.name, key_of(commit, method, seed), _missing) for seed in plan["seeds"]
        ]
        for method in compared
    }
    rows = [row | {"commit": commit[:10]} for row in lines(found, compared[0].params, plan["controls"])]
    with atomic_file(CSV) as path:
        pd.DataFrame(rows).to_csv(path, index=False, float_format="%.6g", lineterminator="\n")
    parts = ["# Methods side by side", methods_table.note(rows), *map(markdown.table, methods_table.tables(rows))]
    write_text(TABLE, "\n\n".join(parts) + "\n")
    print(TABLE.read_text(encoding="utf-8"))


def _missing() -> Any:
    raise UserError(f"a student that was measured is gone from {home(os.environ, Path.cwd())}; run the command again.")


if __name__ == "__main__":
    run_main(main)
