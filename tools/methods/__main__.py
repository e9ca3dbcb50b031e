"""Compare methods on a reduced profile of the default data: `python -m tools.methods [METHOD ...]`.

Each method of experiments/methods.yaml is a set of changes to params.yaml. HEAD is cloned into .distill/methods, once
for each method that runs at the same time. There the pipeline trains each method's student with every seed. The
students are measured on the same held-out responses, as stage evaluate measures them. Scores are means over the seeds;
their 95% intervals come from a bootstrap over items and seeds. An interrupted comparison resumes after the last
measured student.

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
from tqdm import tqdm

from distill.cards import markdown
from distill.core.errors import UserError, run_main
from distill.core.files import Row, atomic_file, write_text
from distill.core.home import home
from distill.evaluation.cache import cached
from distill.modeling import runtime
from distill.params.loading import PATH
from distill.params.yaml_text import read_yaml
from distill.reporting import methods_table
from tools.methods.plan import METHODS, Method, load_methods
from tools.methods.scores import summarize
from tools.methods.student import train_and_measure
from tools.verify.clone import git

CSV, TABLE = Path("metrics/methods.csv"), Path("metrics/methods.md")
NUM_LOG_LINES = 15  # shown of a method that failed


def results_folder(root: Path) -> Path:
    """Folder of the measured students and the logs."""
    return home(os.environ, root).absolute() / "methods" / "measured"


def clone_head(root: Path, commit: str, slot: int) -> Path:
    """Folder of the clone for this slot; an earlier one of the same commit is used again."""
    folder = results_folder(root).with_name(f"{commit[:10]}-{slot}")
    if not folder.exists():
        new = folder.with_suffix(".new")
        shutil.rmtree(new, ignore_errors=True)
        git(root, "clone", "--quiet", "--no-checkout", str(root), str(new))
        git(new, "checkout", "--quiet", "--detach", commit)
        new.rename(folder)
    return folder


def cache_key(commit: str, method: Method, seed: int) -> Row:
    """Everything that a student and its scores depend on."""
    return {"commit": commit, "params": method.raw, "variant": method.variant, "seed": seed}


def measure(methods: list[Method], seeds: list[int], slot: int, root: Path, commit: str) -> None:
    """Trains and measures the students in the clone of this slot, except those measured before."""
    folder = clone_head(root, commit, slot)
    datasets.disable_progress_bars()
    runtime.prepare(methods[0].params.runtime.threads, methods[0].params.data_seed)
    prepared: set[str] = set()
    for method in methods:
        for seed in seeds:
            print(f"{method.name}, seed {seed}", flush=True)
            make = partial(train_and_measure, folder, method, prepared, seed)
            cached(results_folder(root), method.name, cache_key(commit, method, seed), make)


def measure_in_parallel(methods: list[Method], jobs: int, root: Path) -> None:
    """Measures `jobs` methods at a time, each in its own process with its own log.

    Raises UserError with the end of the log if one fails. The others that run at that time are finished and kept.
    """
    slots: SimpleQueue[int] = SimpleQueue()
    for slot in range(jobs):
        slots.put(slot)

    def measure_in_process(method: Method) -> str:
        slot, started = slots.get(), time.monotonic()
        log = results_folder(root) / f"{method.name}.log"
        with log.open("w", encoding="utf-8") as file:
            command = [sys.executable, "-m", "tools.methods", "--slot", str(slot), method.name]
            done = subprocess.run(command, stdout=file, stderr=subprocess.STDOUT, check=False)
        slots.put(slot)
        if done.returncode:
            lines = log.read_text(encoding="utf-8", errors="replace").splitlines()[-NUM_LOG_LINES:]
            raise UserError("\n".join([f"{method.name} failed; the end of {log}:", *lines]))
        return f"{method.name}: {(time.monotonic() - started) / 60:.1f} minutes"

    results_folder(root).mkdir(parents=True, exist_ok=True)
    print(f"{len(methods)} methods, {jobs} at a time; logs are in {results_folder(root)}", flush=True)
    with ThreadPoolExecutor(jobs) as pool:
        running = [pool.submit(measure_in_process, method) for method in methods]
        try:
            for finished in tqdm(as_completed(running), total=len(running), unit="method"):
                tqdm.write(finished.result())
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


def write_results(methods: list[Method], plan: Row, root: Path, commit: str) -> None:
    """Writes the CSV file and the table from the cached measurements."""

    def measured(method: Method, seed: int) -> Any:
        return cached(results_folder(root), method.name, cache_key(commit, method, seed), _refuse)

    students = {method.name: [measured(method, seed) for seed in plan["seeds"]] for method in methods}
    rows = [row | {"commit": commit[:10]} for row in summarize(students, methods[0].params, plan["controls"])]
    with atomic_file(CSV) as path:
        pd.DataFrame(rows).to_csv(path, index=False, float_format="%.6g", lineterminator="\n")
    parts = ["# Comparison of methods", methods_table.note(rows), *map(markdown.table, methods_table.tables(rows))]
    write_text(TABLE, "\n\n".join(parts) + "\n")


def _refuse() -> Any:
    raise UserError(f"a measured student is missing in {home(os.environ, Path.cwd())}. Run the command again.")


def parse() -> argparse.Namespace:
    """The methods and how many of them run at a time."""
    parser = argparse.ArgumentParser(
        prog="python -m tools.methods", description=(__doc__ or "").partition(":")[0] + "."
    )
    parser.add_argument("methods", nargs="*", metavar="METHOD", help="names (default: all of the file)")
    parser.add_argument("--jobs", type=int, help="methods at a time (default: processors / runtime.threads)")
    parser.add_argument("--slot", type=int, help=argparse.SUPPRESS)  # in a process of measure_in_parallel: its clone
    return parser.parse_args()


def main() -> None:
    options = parse()
    root = Path.cwd()
    plan, base = read_yaml(METHODS), read_yaml(PATH)
    methods = load_methods(base, plan, options.methods)
    commit = git(root, "rev-parse", "HEAD").decode().strip()
    if options.slot is not None:
        measure(methods, plan["seeds"], options.slot, root, commit)
        return
    jobs = options.jobs
    if jobs is None:
        jobs = max((os.cpu_count() or 1) // methods[0].params.runtime.threads, 1)
    if jobs < 1:
        raise UserError(f"--jobs must be at least 1, got {jobs}.")
    if git(root, "status", "--porcelain", "--untracked-files=no"):
        print("note: params.yaml and experiments/methods.yaml are read from the working tree, the code is that of HEAD")
    measure_in_parallel(methods, jobs, root)
    write_results(methods, plan, root, commit)
    print(TABLE.read_text(encoding="utf-8"))


if __name__ == "__main__":
    run_main(main)
