"""Measures teacher, init, sft and distilled side by side on held-out topics: `python -m stages.evaluate`.

Reads  data/clean/test.jsonl, models/{init,sft,distilled}, params seed, runtime, teachers, evaluate
Writes metrics/metrics.json (main table), metrics/evaluate.json (all scores with intervals), metrics/items.csv,
       metrics/samples.jsonl, metrics/regressions.jsonl, data/evaluated/extra_samples.jsonl, metrics/latency.json;
       metrics/environment/evaluate.json, and what was measured in .distill/evaluations, not to be measured again
"""

import json
import logging
import os
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import datasets
import pandas as pd
import torch

from distill import choices, environment, extra_tasks, latency, model_files, models, own_tasks
from distill import params as params_file
from distill.bootstrap import Estimate
from distill.calibration import calibration, lengths
from distill.choices import CHANCE, Row, subset
from distill.errors import UserError, run
from distill.files import file_hash, read_rows, value_hash, whole_file, write_json, write_rows
from distill.goals import GOALS
from distill.home import home
from distill.lm import DistillLM
from distill.measures import estimates
from distill.params import Latency, LocalTeacher, Params
from distill.regressions import largest
from distill.results_cache import cached
from distill.rounding import all_rounded, rounded

TEST = Path("data/clean/test.jsonl")
STUDENTS = {name: Path("models") / name for name in ("init", "sft", "distilled")}
METRICS = Path("metrics")
EXTRA_SAMPLES = Path("data/evaluated/extra_samples.jsonl")
CODE = [Path(__file__), *sorted(Path(choices.__file__).parent.rglob("*.py")), *sorted(own_tasks.TASKS.glob("*.yaml"))]
GENERATED_AT_ONCE = 128

Places = dict[str, tuple[str, str | None]]  # of each model: what `models.load` takes, and the revision


def teacher_of(params: Params) -> LocalTeacher:
    """The local teacher that students are measured against; the schema has checked that there is one."""
    return next(
        teacher
        for teacher in params.teachers
        if isinstance(teacher, LocalTeacher) and teacher.name == params.evaluate.teacher
    )


def load_all(teacher: LocalTeacher, dtype: torch.dtype) -> dict[str, tuple[Any, Any]]:
    """Each model with its tokenizer, the teacher first. Raises UserError where a student is missing."""
    for name, folder in STUDENTS.items():
        if not (folder / "model.safetensors").exists():
            raise UserError(f"{folder} has no model: stage train@{name} writes it (`dvc repro train@{name}`).")
    loaded = {"teacher": models.load(teacher.model, dtype, teacher.revision, teacher.sha256)}
    return loaded | {name: models.load(str(folder), dtype) for name, folder in STUDENTS.items()}


def conditions(params: Params) -> Row:
    """What every measurement depends on beside the model and what it is asked: params, code, packages, processor."""
    return {
        "seed": params.seed,
        "batch_tokens": params.evaluate.batch_tokens,
        "max_new_tokens": params.evaluate.max_new_tokens,
        "environment": environment.manifest(params.runtime),
        "code": [file_hash(path) for path in CODE],
    }


def main_table(
    scores: dict[str, dict[str, Estimate]], sizes: dict[str, tuple[int, int]], gain: float
) -> dict[str, dict[str, Any]]:
    """metrics/metrics.json: the four models, and the goals of `distilled` against `teacher`."""
    table: dict[str, dict[str, Any]] = {}
    for name, score in scores.items():
        accuracy = score["accuracy"]
        table[name] = {
            "accuracy": rounded(accuracy.value),
            "accuracy_ci_low": rounded(accuracy.ci_low),
            "accuracy_ci_high": rounded(accuracy.ci_high),
            "accuracy_above_chance": rounded(score["accuracy_above_chance"].value),
            "perplexity": rounded(score["perplexity"].value),
            "agreement": rounded(score["agreement"].value),
            "rouge_l": rounded(score["rouge_l"].value),
            "parameters": sizes[name][0],
            "bytes": sizes[name][1],
        }
    student, teacher = table["distilled"], table["teacher"]
    if teacher["accuracy_above_chance"] <= 0:
        raise UserError(
            f"the teacher's accuracy is {teacher['accuracy']:.3f}, no better than chance ({CHANCE}): the task cannot "
            "tell models apart. Look at data/clean/test.jsonl: are these the teacher's own answers?"
        )
    goals: dict[str, Any] = {
        "accuracy_ratio": rounded(student["accuracy"] / teacher["accuracy"]),
        "accuracy_ratio_above_chance": rounded(student["accuracy_above_chance"] / teacher["accuracy_above_chance"]),
        "perplexity": student["perplexity"],
        "compression_ratio": rounded(student["parameters"] / teacher["parameters"]),
        "latency_gain": round(gain, 1),
    }
    return table | {"goals": goals | {"met": sum(goal.met(goals[goal.name]) for goal in GOALS)}}


def all_scores(
    tables: dict[str, pd.DataFrame],
    scores: dict[str, dict[str, Estimate]],
    sizes: dict[str, tuple[int, int]],
    extra: dict[str, dict[str, Row]],
) -> Row:
    """metrics/evaluate.json: scores with intervals, calibration, lengths, compression, extra tasks."""
    (small, small_bytes), (large, large_bytes) = sizes["distilled"], sizes["teacher"]
    whole, cut = extra_tasks.parted(extra)
    return {
        "models": {name: {key: asdict(value) for key, value in score.items()} for name, score in scores.items()},
        "calibration": {name: calibration(items) for name, items in tables.items()},
        "lengths": {name: lengths(items) for name, items in tables.items()},
        "compression": {"parameters": small / large, "bytes": small_bytes / large_bytes},
        "extra_tasks": whole,
        "limited_extra_tasks": cut,
    }


def samples(rows: list[Row], tables: dict[str, pd.DataFrame], generations: set[str]) -> list[Row]:
    """The prompts that were answered, with the teacher's stored answer and what each model wrote."""
    written = {name: dict(zip(items["item"], items["generated"], strict=True)) for name, items in tables.items()}
    return [
        {
            "id": row["id"],
            "messages": row["messages"],
            "reference": row["response"],
            "generated": {name: texts[row["id"]] for name, texts in written.items()},
        }
        for row in rows
        if row["id"] in generations
    ]


def extra_results(
    params: Params, data: list[str], name: str, model: tuple[Any, Any], alike: Row, folder: Path
) -> tuple[dict[str, Row], list[Row]]:
    """One model's scores in evaluate.extra_tasks by task, and a row for each sample; `data` has each entry's hash."""
    scores: dict[str, Row] = {}
    rows: list[Row] = []
    limit, seed = params.evaluate.extra_limit, params.seed
    for extra, digest in zip(params.evaluate.extra_tasks, data, strict=True):
        key = alike | {"extra": extra.model_dump(), "limit": limit, "data": digest}
        found, asked = cached(folder, f"{name}-extra", key, partial(extra_tasks.run, *model, extra, limit, seed))
        scores |= found
        rows += [{"model": name} | row for row in asked]
    return scores, rows


def measured(
    params: Params,
    loaded: dict[str, tuple[Any, Any]],
    where: Places,
    pool: list[Row],
    rows: list[Row],
    written: set[str],
) -> tuple[dict[str, pd.DataFrame], dict[str, dict[str, Row]], list[Row]]:
    """Each model's items, its scores in extra tasks, and all samples of those; `written` are the items to generate."""
    evaluate, folder, alike = params.evaluate, home(os.environ, Path.cwd()) / "evaluations", conditions(params)
    data = [extra_tasks.data_hash(extra) for extra in evaluate.extra_tasks]
    picked = choices.choices(rows, pool, params.seed)
    references = {row["id"]: row["response"] for row in rows}
    teacher_tokenizer = loaded["teacher"][1]
    tables: dict[str, pd.DataFrame] = {}
    extra: dict[str, dict[str, Row]] = {}
    samples: list[Row] = []
    for name, (network, tokenizer) in loaded.items():
        print(f"{name}: {len(rows)} items, {len(written)} generations", flush=True)
        own = alike | {"model": model_files.identity(*where[name])}
        docs = own_tasks.documents(rows, pool, picked, tokenizer, teacher_tokenizer)
        key = own | {"documents": value_hash(docs), "generations": sorted(written)}
        lm = DistillLM(network, tokenizer, evaluate.batch_tokens, GENERATED_AT_ONCE, evaluate.max_new_tokens)
        items = cached(folder, name, key, partial(own_tasks.items, lm, docs, written))
        tables[name] = pd.DataFrame(own_tasks.compared(items, references, teacher_tokenizer))
        extra[name], asked = extra_results(params, data, name, (network, tokenizer), own, folder)
        samples += asked
    return tables, extra, samples


def timed(networks: dict[str, Any], timing: Latency) -> Row:
    """metrics/latency.json."""
    runs = latency.measure(networks, timing.prompt_tokens, timing.new_tokens, timing.warmup, timing.runs)
    gain = latency.median_seconds(runs["teacher"]) / latency.median_seconds(runs["distilled"])
    return {
        "models": {name: latency.summary(some) for name, some in runs.items()},
        "latency_gain": round(gain, 3),
        "gain_is": "median milliseconds of a whole answer at batch 1, teacher over distilled",
        "prompt_tokens": timing.prompt_tokens,
        "new_tokens": timing.new_tokens,
        "runs": timing.runs,
    }


def write_items(tables: dict[str, pd.DataFrame]) -> None:
    """metrics/items.csv: every item of every model, without its text."""
    combined = pd.concat([items.assign(model=name) for name, items in tables.items()])
    columns = ["model", "item", *(name for name in combined.columns if name not in ("model", "item", "generated"))]
    with whole_file(METRICS / "items.csv") as path:
        combined[columns].to_csv(path, index=False, float_format="%.6g", lineterminator="\n")


def main() -> None:
    params = params_file.load()
    evaluate, seed = params.evaluate, params.seed
    models.prepare(params.runtime.threads, seed)
    datasets.disable_progress_bars()
    logging.getLogger("lm_eval").setLevel(logging.ERROR)
    pool = list(read_rows(TEST, "stage clean"))
    rows = subset(pool, evaluate.max_items, seed)
    written = {row["id"] for row in subset(rows, evaluate.max_generations, seed)}
    teacher = teacher_of(params)
    where: Places = {"teacher": (teacher.model, teacher.revision)}
    where |= {name: (str(folder), None) for name, folder in STUDENTS.items()}
    loaded = load_all(teacher, models.compute_dtype(params.runtime.dtype))
    networks = {name: network for name, (network, _) in loaded.items()}
    tables, extra, extra_samples = measured(params, loaded, where, pool, rows, written)
    print("latency", flush=True)
    speed = timed(networks, evaluate.latency)
    scores = {name: estimates(items, evaluate.bootstrap, seed) for name, items in tables.items()}
    sizes = {
        name: (models.parameter_count(network), model_files.bytes_on_disk(*where[name]))
        for name, network in networks.items()
    }
    table = main_table(scores, sizes, speed["latency_gain"])
    counts = {"items": len(rows), "held_out": len(pool), "generations": len(written)}
    write_json(METRICS / "evaluate.json", all_rounded(counts | all_scores(tables, scores, sizes, extra)))
    write_items(tables)
    write_rows(METRICS / "samples.jsonl", samples(rows, tables, written))
    write_rows(METRICS / "regressions.jsonl", largest(rows, tables))
    write_rows(EXTRA_SAMPLES, extra_samples)
    write_json(METRICS / "latency.json", speed)
    write_json(METRICS / "metrics.json", table)
    environment.record("evaluate", params.runtime)
    print(json.dumps(table["goals"], indent=2))


if __name__ == "__main__":
    run(main)
