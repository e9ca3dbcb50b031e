"""Compares methods on a reduced profile of the default data: `python -m tools.methods [METHOD ...]`.

Each method of experiments/methods.yaml is a set of changes to params.yaml. HEAD is cloned into .distill/methods, the
pipeline trains each method's student there with every seed (DVC makes anew what a change touches and no more), and
the students are measured on the same held-out answers as stage evaluate does it. Scores are means over the seeds, the
95% intervals from a bootstrap over items and seeds. Killed and run again, it goes on behind the last student.

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
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import datasets
import pandas as pd
import torch
import yaml

from distill import choices, markdown, models, own_tasks, targets
from distill import params as params_file
from distill.bootstrap import Estimate
from distill.choices import CHANCE
from distill.document import Table, number
from distill.errors import UserError, run
from distill.files import read_json, read_rows, whole_file, write_text
from distill.home import VARIABLE, home
from distill.lm import DistillLM
from distill.measures import estimates
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
SHOWN = {"perplexity": "perplexity", "agreement": "agreement", "accuracy": "accuracy", "rouge_l": "ROUGE-L"}
OWN_KEYS = ("variant", "requires")  # of a method, beside those of params.yaml
GENERATED_AT_ONCE = 128
KL_TEXTS = 200  # held-out answers that the divergence is measured on, at most

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


def repository(root: Path, commit: str) -> Path:
    """HEAD's clone, the one that an earlier call left where there is one."""
    folder = home(os.environ, root).absolute() / "methods" / commit[:10]
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
    teacher = next(one for one in params.teachers if one.name == evaluate.teacher and one.kind == "local")
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


def held_out_kl(folder: Path, student: Path, params: Params) -> float | None:
    """KL(teacher || student) on held-out answers of evaluate.teacher, nats for each of its tokens.

    None for a student of another tokenizer family, whose distributions are over other outcomes.
    """
    spec = teacher_of(params.teachers, params.evaluate.teacher)
    teacher, tokenizer = models.load(spec.model, torch.float32, spec.revision, spec.sha256)
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


def trained(folder: Path, method: Method, seed: int) -> Row:
    """Trains a method's student with this seed in the clone and measures it."""
    with whole_file(folder / params_file.PATH) as path:
        path.write_text(yaml.safe_dump(method.raw, sort_keys=False, allow_unicode=True), encoding="utf-8")
    this = Run(method.variant, seed)
    dvc(folder, "repro", "weight", "init")
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


def lines(found: dict[str, list[Row]], params: Params) -> list[Row]:
    """A row for each method: every score with its interval over items and seeds, held-out KL, bytes, tokens, minutes.

    Raises UserError where they were not measured on the same items.
    """
    result: list[Row] = []
    asked = {name: {item["item"] for one in seeds for item in one["items"]} for name, seeds in found.items()}
    first = next(iter(asked))
    if other := [name for name, items in asked.items() if items != asked[first]]:
        raise UserError(f"{', '.join(other)}: measured on other held-out answers than {first}, so not to be compared.")
    for name, seeds in found.items():
        tables = [pd.DataFrame(one["items"]) for one in seeds]
        scores: dict[str, Estimate] = estimates(tables, params.evaluate.bootstrap, params.seed, CHANCE)
        row: Row = {"method": name, "seeds": len(seeds), "items": len(tables[0])}
        for score, value in scores.items():
            row |= {score: value.value, f"{score}_ci_low": value.ci_low, f"{score}_ci_high": value.ci_high}
        row |= {name: seeds[0][name] for name in ("bytes_a_token", "response_tokens")}
        divergences = [one["held_out_kl"] for one in seeds]
        row |= {"held_out_kl": None if None in divergences else sum(divergences) / len(seeds)}
        row |= {"minutes": sum(one["minutes"] for one in seeds) / len(seeds)}
        result.append(row)
    return result


def table(rows: list[Row]) -> Table:
    """The methods, best perplexity first."""
    header = ["method", *(f"{name} [95%]" for name in SHOWN.values())]
    header += ["held-out KL", "bytes a token", "response tokens", "minutes"]
    body = [
        [
            row["method"],
            *(
                f"{number(row[score])} [{number(row[f'{score}_ci_low'])}, {number(row[f'{score}_ci_high'])}]"
                for score in SHOWN
            ),
            "" if row["held_out_kl"] is None else number(row["held_out_kl"]),
            "" if row["bytes_a_token"] is None else f"{row['bytes_a_token']:.0f}",
            f"{row['response_tokens']:,}",
            f"{row['minutes']:.1f}",
        ]
        for row in sorted(rows, key=lambda row: row["perplexity"])
    ]
    return Table(header, body)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition(":")[0])
    parser.add_argument("methods", nargs="*", metavar="METHOD", help="these; all of the file by default")
    wanted = parser.parse_args().methods
    root = Path.cwd()
    plan = yaml.safe_load(METHODS.read_text(encoding="utf-8"))
    base = yaml.safe_load(params_file.PATH.read_text(encoding="utf-8"))
    compared = methods(base, plan, wanted)
    commit = git(root, "rev-parse", "HEAD").decode().strip()
    if git(root, "status", "--porcelain", "--untracked-files=no"):
        print("note: params.yaml and the list of methods are read from here, the code is HEAD's")
    folder = repository(root, commit)
    datasets.disable_progress_bars()
    models.prepare(compared[0].params.runtime.threads, compared[0].params.seed)
    found: dict[str, list[Row]] = {}
    for method in compared:
        for seed in plan["seeds"]:
            print(f"{method.name}, seed {seed}", flush=True)
            key = {"commit": commit, "params": method.raw, "variant": method.variant, "seed": seed}
            make = partial(trained, folder, method, seed)
            found.setdefault(method.name, []).append(cached(folder / ".distill/methods", method.name, key, make))
    rows = lines(found, compared[0].params)
    with whole_file(CSV) as path:
        pd.DataFrame(rows).to_csv(path, index=False, float_format="%.6g", lineterminator="\n")
    text = markdown.table(table(rows))
    write_text(TABLE, f"{text}\n")
    print(text)


if __name__ == "__main__":
    run(main)
