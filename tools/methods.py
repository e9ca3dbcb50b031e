"""Compares methods on a reduced profile of the default data: `python -m tools.methods [METHOD ...]`.

Each method of experiments/methods.yaml is a set of changes to params.yaml. HEAD is cloned into .distill/methods, as
often as methods are measured at a time; the pipeline trains each method's student there with every seed (DVC makes anew
what a change touches and no more), and the students are measured on the same held-out answers as stage evaluate does
it. Scores are means over the seeds, the 95% intervals from a bootstrap over items and seeds. Killed and run again, it
goes on behind the last student of each method.

`held_out_kl` is KL(teacher || student) on held-out answers, in nats for each of their tokens, exact over the
vocabulary; the teacher is evaluate.teacher for all methods. Where a student lacks a token, its probability counts as
that of the student's first piece of it, and the later pieces of the text count with their cross-entropy.
`bytes_a_token` is the size of what weight stored of the targets' teacher; a student of texts alone has none.

Writes metrics/methods.csv (every score with its interval) and metrics/methods.md (the table).
"""

import argparse
import importlib.util
import os
import shutil
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import datasets
import pandas as pd
import torch
import yaml
from tqdm import tqdm

from distill import choices, markdown, methods_table, models, own_tasks, targets
from distill import params as params_file
from distill.bootstrap import Estimate, paired_difference
from distill.choices import CHANCE
from distill.errors import UserError, run
from distill.files import read_json, read_rows, whole_file, write_text
from distill.home import VARIABLE, home
from distill.lm import DistillLM
from distill.measures import estimates, measures
from distill.params import Params
from distill.results_cache import cached
from distill.runs import Run
from distill.teaching import teacher_of
from distill.vocabulary import same_family
from tools.held_out import exact
from tools.overlay import changed
from tools.verify import git

METHODS = Path("experiments/methods.yaml")
TARGETS = Path("data/weighted/targets")
CSV, TABLE = Path("metrics/methods.csv"), Path("metrics/methods.md")
OWN_KEYS = ("variant", "requires")  # of a method, beside those of params.yaml
GENERATED_AT_ONCE = 128
PERPLEXITY = measures(CHANCE)["perplexity"]
KL_TEXTS = 100  # held-out answers that the divergence is measured on, at most
LEAST_SHARE = 0.9  # of all held-out answers that must be common to all methods
LAST_LINES = 15  # of the log of a method that failed, shown

Row = dict[str, Any]


@dataclass(frozen=True)
class Method:
    """A name, which of the two variants is its student, and the whole of its params.yaml."""

    name: str
    variant: str
    raw: Row
    params: Params


def methods(base: Row, plan: Row, wanted: list[str]) -> list[Method]:
    """The methods that are wanted, all for none. Raises UserError for an unknown one and for params refused."""
    unknown = sorted(set(wanted) - set(plan["methods"]))
    if unknown:
        raise UserError(f"{METHODS} has no {', '.join(unknown)}; it has {', '.join(plan['methods'])}.")
    found = []
    for name, changes in plan["methods"].items():
        if wanted and name not in wanted:
            continue
        package = changes.get("requires")
        if package and importlib.util.find_spec(package) is None:
            print(f"{name} is left out: it needs the package {package}, which is not installed here")
            continue
        own = {key: value for key, value in changes.items() if key not in OWN_KEYS}
        profile = plan["profile"] | {"seeds": plan["seeds"]}
        raw = changed(changed(base, profile, METHODS), own, METHODS)
        try:
            params = params_file.check(raw)
        except UserError as error:
            raise UserError(f"{METHODS}, method {name}: {error}") from None
        if params.generate.labels is not None:
            raise UserError(
                f"{METHODS}, method {name}: methods are compared by what they write; generate.labels must be null."
            )
        found.append(Method(name, changes.get("variant", "distilled"), raw, params))
    return found


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


def dvc(folder: Path, *arguments: str) -> float:
    """Runs DVC in the clone; returns the seconds. Raises UserError where it fails."""
    mine = os.environ | {
        VARIABLE: str(folder / ".distill"),
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}",
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    started = time.monotonic()
    done = subprocess.run([sys.executable, "-m", "dvc", *arguments], cwd=folder, env=mine, check=False)
    if done.returncode:
        raise UserError(f"`dvc {' '.join(arguments)}` failed in {folder}; its message is above.")
    return time.monotonic() - started


def measured(folder: Path, params: Params, model: tuple[Any, Any]) -> list[Row]:
    """One model's scores on every held-out answer, as stage evaluate has them."""
    evaluate, seed = params.evaluate, params.seed
    teacher = teacher_of(params.teachers, evaluate.teacher)
    teacher_tokenizer = models.load_tokenizer(teacher.model, teacher.revision, teacher.sha256)
    held_out = read_rows(folder / "data/clean/test.jsonl", "stage clean")
    pool = [row for row in held_out if row["teacher"] == teacher.name]  # the same for a mixture of teachers
    rows = choices.subset(pool, evaluate.max_items, seed)
    written = {row["id"] for row in choices.subset(rows, evaluate.max_generations, seed)}
    network, tokenizer = model
    docs = own_tasks.documents(rows, pool, choices.choices(rows, pool, seed), tokenizer, teacher_tokenizer)
    lm = DistillLM(network, tokenizer, evaluate.batch_tokens, GENERATED_AT_ONCE, evaluate.max_new_tokens)
    references = {row["id"]: row["response"] for row in rows}
    return own_tasks.compared(own_tasks.items(lm, docs, written), references, teacher_tokenizer)


@cache
def teacher_in_full(model: str, revision: str | None, sha256: str | None) -> tuple[Any, Any]:
    """A teacher in fp32 and its tokenizer, loaded once."""
    return models.load(model, torch.float32, revision, sha256)


def held_out_kl(folder: Path, student: Path, params: Params) -> float | None:
    """KL(teacher || student) on held-out answers of evaluate.teacher, nats for each of its tokens.

    None for a student of another tokenizer family, whose distributions are over other outcomes.
    """
    spec = teacher_of(params.teachers, params.evaluate.teacher)
    teacher, tokenizer = teacher_in_full(spec.model, spec.revision, spec.sha256)
    if not same_family(tokenizer, models.load_tokenizer(str(student))):
        return None
    held_out = read_rows(folder / "data/clean/test.jsonl", "stage clean")
    pool = [row for row in held_out if row["teacher"] == spec.name]
    return exact(student, teacher, tokenizer, choices.subset(pool, KL_TEXTS, params.seed))


def bytes_a_token(stored: Path, method: Method) -> float | None:
    """Bytes of the targets in this folder, of layers too, for each response token of their teacher.

    0 where the teacher is asked in each step, None for a student that learns from texts alone.
    """
    settings = method.params.train.distilled
    if method.variant != "distilled" or not (settings.needs_teacher or settings.layer_loss):
        return None
    size = sum(
        (path.parent / shard["file"]).stat().st_size
        for path in stored.rglob(targets.MANIFEST)
        for shard in read_json(path, "stage weight")["shards"]
    )
    lengths = [length for _, _, length in read_json(stored / targets.MANIFEST, "stage weight")["samples"].values()]
    return size / sum(lengths) if lengths else 0.0


def trained(folder: Path, method: Method, ready: set[str], seed: int) -> Row:
    """Trains a method's student with this seed in the clone and measures it; `ready` has whose data are there."""
    with whole_file(folder / params_file.PATH) as path:
        path.write_text(yaml.safe_dump(method.raw, sort_keys=False, allow_unicode=True), encoding="utf-8")
    this = Run(method.variant, seed)
    if method.name not in ready:
        dvc(folder, "repro", "weight", "init")
        ready.add(method.name)
    seconds = dvc(folder, "repro", "--force", "--single-item", this.stage)
    student = models.load(str(folder / this.folder), models.compute_dtype(method.params.runtime.dtype))
    items = measured(folder, method.params, student)
    tokens = read_json(folder / this.record, f"stage {this.stage}")["response_tokens"]
    return {
        "items": items,
        "minutes": seconds / 60,
        "response_tokens": tokens,
        "held_out_kl": held_out_kl(folder, folder / this.folder, method.params),
        "bytes_a_token": bytes_a_token(folder / TARGETS, method),
    }


def lines(found: dict[str, list[Row]], params: Params, controls: list[str]) -> list[Row]:
    """A row for each method: every score with its interval over items and seeds, held-out KL, bytes, tokens, minutes.

    For each control there is the paired difference of perplexity, None where the control is not among them.
    """
    result: list[Row] = []
    tables = on_the_same({name: [pd.DataFrame(one["items"]) for one in seeds] for name, seeds in found.items()})
    resamples, seed = params.evaluate.bootstrap, params.seed
    for name, seeds in found.items():
        own = tables[name]
        row: Row = {"method": name, "seeds": len(seeds), "items": len(own[0])}
        for score, value in estimates(own, resamples, seed, CHANCE).items():
            row |= with_ends(score, value)
        for control in controls:
            difference = None
            if control in tables:
                theirs, ours = (PERPLEXITY.ratios(items) for items in (tables[control], own))
                difference = paired_difference(theirs, ours, resamples, seed, PERPLEXITY.transform)
            row |= with_ends(f"{methods_table.AGAINST}{control}", difference)
        row |= {name: seeds[0][name] for name in ("bytes_a_token", "response_tokens")}
        divergences = [one["held_out_kl"] for one in seeds]
        row |= {"held_out_kl": None if None in divergences else sum(divergences) / len(seeds)}
        row |= {"minutes": sum(one["minutes"] for one in seeds) / len(seeds)}
        result.append(row)
    return result


def on_the_same(tables: dict[str, list[pd.DataFrame]]) -> dict[str, list[pd.DataFrame]]:
    """The items that all students of all methods were measured on, in one order.

    A second teacher's answers may make `clean` drop a held-out one that repeats them. Raises UserError where a method
    lacks more than LEAST_SHARE allows.
    """
    asked = {name: set.intersection(*(set(one["item"]) for one in seeds)) for name, seeds in tables.items()}
    common, whole = set.intersection(*asked.values()), set.union(*asked.values())
    short = [name for name, items in asked.items() if len(items) < LEAST_SHARE * len(whole)]
    if short or len(common) < LEAST_SHARE * len(whole):
        names = ", ".join(short) or "the methods"
        raise UserError(
            f"{names}: measured on other held-out answers than the others ({len(common)} of {len(whole)} are common to "
            "all), so not to be compared."
        )
    return {
        name: [one[one["item"].isin(common)].sort_values("item", ignore_index=True) for one in seeds]
        for name, seeds in tables.items()
    }


def with_ends(name: str, estimate: Estimate | None) -> Row:
    """The columns of an estimate and its interval, empty for None."""
    names = [name, *(f"{name}_{end}" for end in methods_table.ENDS)]
    values = [None] * 3 if estimate is None else [estimate.value, estimate.ci_low, estimate.ci_high]
    return dict(zip(names, values, strict=True))


def key_of(commit: str, method: Method, seed: int) -> Row:
    """All that a student and its scores depend on."""
    return {"commit": commit, "params": method.raw, "variant": method.variant, "seed": seed}


def measure(compared: list[Method], seeds: list[int], place: int, root: Path, commit: str) -> None:
    """Trains and measures students in the clone of this place, those that have not been before."""
    folder = repository(root, commit, place)
    datasets.disable_progress_bars()
    models.prepare(compared[0].params.runtime.threads, compared[0].params.seed)
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
    with whole_file(CSV) as path:
        pd.DataFrame(rows).to_csv(path, index=False, float_format="%.6g", lineterminator="\n")
    parts = ["# Methods side by side", methods_table.note(rows), *map(markdown.table, methods_table.tables(rows))]
    write_text(TABLE, "\n\n".join(parts) + "\n")
    print(TABLE.read_text(encoding="utf-8"))


def _missing() -> Any:
    raise UserError(f"a student that was measured is gone from {home(os.environ, Path.cwd())}; run the command again.")


if __name__ == "__main__":
    run(main)
