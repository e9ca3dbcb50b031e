"""Measures teacher, init, sft and distilled side by side on held-out topics: `python -m stages.evaluate`.

Reads  data/clean/test.jsonl, models/init, models/{sft,distilled}-<seed> of every training seed, metrics/init.json,
       metrics/train, params data_seed, training_seeds, runtime, teachers, generate.class_labels, evaluate
Writes metrics/metrics.json (main table), metrics/evaluate.json (all scores with intervals), metrics/seeds.csv,
       metrics/items.csv, metrics/samples.jsonl, metrics/regressions.jsonl, data/evaluated/benchmark_samples.jsonl,
       metrics/latency.json; metrics/environment/evaluate.json, and what was measured in .distill/evaluations, not to
       be measured again

Scores of sft and distilled are means over the training seeds; samples, latency and size are those of the first.
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

from distill.core.code import imported_code
from distill.core.errors import UserError, run_main
from distill.core.files import atomic_file, file_hash, read_rows, value_hash, write_json, write_rows
from distill.core.home import home
from distill.core.numbers import round_number, round_numbers
from distill.evaluation import benchmarks, class_labels, classification, held_out, latency, multiple_choice
from distill.evaluation.bootstrap import Estimate
from distill.evaluation.cache import cached
from distill.evaluation.goals import GOALS
from distill.evaluation.lm_eval_model import DistillLM
from distill.evaluation.multiple_choice import Row, subset
from distill.evaluation.regressions import largest
from distill.evaluation.scores import (
    calibration,
    chance_of,
    estimates,
    lengths,
    mean_of,
    mean_tasks,
    over_seeds,
)
from distill.modeling import environment, loading, runtime
from distill.params.evaluate import Latency
from distill.params.loading import load_params
from distill.params.schema import Params
from distill.params.teachers import LocalTeacher
from distill.students.runs import TRAINED, Run, require_model, students

TEST = Path("data/clean/test.jsonl")
METRICS = Path("metrics")
BENCHMARK_SAMPLES = Path("data/evaluated/benchmark_samples.jsonl")
GENERATED_AT_ONCE = 128

Places = dict[str, tuple[str, str | None]]  # of each model: what `loading.load_model` takes, and the revision


def load_all(teacher: LocalTeacher, runs: list[Run], dtype: torch.dtype) -> dict[str, tuple[Any, Any]]:
    """Each run's model with its tokenizer, the teacher first. Raises UserError where a student is missing."""
    for one in runs:
        require_model(one)
    loaded = {"teacher": loading.load_teacher(teacher, dtype)}
    return loaded | {one.name: loading.load_model(str(one.folder), dtype) for one in runs}


def conditions(params: Params) -> Row:
    """What every measurement depends on beside the model and what it is asked: params, code, packages, processor."""
    return {
        "seed": params.data_seed,
        "batch_tokens": params.evaluate.batch_tokens,
        "max_new_tokens": params.evaluate.max_new_tokens,
        "environment": environment.manifest(params.runtime),
        "code": [file_hash(path) for path in [*imported_code(Path(__file__)), *held_out.task_files()]],
    }


def main_table(
    scores: dict[str, dict[str, Estimate]], sizes: dict[str, tuple[int, int]], gain: float, chance: float
) -> dict[str, dict[str, Any]]:
    """metrics/metrics.json: the four models, and the goals of `distilled` against `teacher`."""
    table: dict[str, dict[str, Any]] = {}
    for name, score in scores.items():
        accuracy = score["accuracy"]
        table[name] = {
            "accuracy": round_number(accuracy.value),
            "accuracy_ci_low": round_number(accuracy.ci_low),
            "accuracy_ci_high": round_number(accuracy.ci_high),
            "accuracy_above_chance": round_number(score["accuracy_above_chance"].value),
            "perplexity": round_number(score["perplexity"].value),
            "top1_agreement": round_number(score["top1_agreement"].value),
            "rouge_l": round_number(score["rouge_l"].value),
            "parameters": sizes[name][0],
            "bytes": sizes[name][1],
        }
    student, teacher = table["distilled"], table["teacher"]
    if teacher["accuracy_above_chance"] <= 0:
        raise UserError(
            f"the teacher's accuracy is {teacher['accuracy']:.3f}, no better than chance ({chance:g}): the task cannot "
            "tell models apart. Look at data/clean/test.jsonl: are these the teacher's own answers?"
        )
    goals: dict[str, Any] = {
        "accuracy_ratio": round_number(student["accuracy"] / teacher["accuracy"]),
        "accuracy_ratio_above_chance": round_number(
            student["accuracy_above_chance"] / teacher["accuracy_above_chance"]
        ),
        "perplexity": student["perplexity"],
        "compression_ratio": round_number(student["parameters"] / teacher["parameters"]),
        "latency_gain": round(gain, 1),
    }
    return table | {"goals": goals | {"met": sum(goal.met(goals[goal.name]) for goal in GOALS)}}


def all_scores(
    tables: dict[str, list[pd.DataFrame]],
    scores: dict[str, dict[str, Estimate]],
    sizes: dict[str, tuple[int, int]],
    extra: dict[str, list[dict[str, Row]]],
    chance: float,
) -> Row:
    """metrics/evaluate.json: scores with intervals, over seeds, calibration, lengths, compression, extra tasks."""
    (small, small_bytes), (large, large_bytes) = sizes["distilled"], sizes["teacher"]
    whole, cut = benchmarks.parted({name: mean_tasks(seeds) for name, seeds in extra.items()})
    return {
        "models": {name: {key: asdict(value) for key, value in score.items()} for name, score in scores.items()},
        "seeds": {name: over_seeds(tables[name], scores[name], chance) for name in TRAINED},
        "calibration": {name: mean_of([calibration(items) for items in seeds]) for name, seeds in tables.items()},
        "lengths": {name: mean_of([lengths(items) for items in seeds]) for name, seeds in tables.items()},
        "compression": {"parameters": small / large, "bytes": small_bytes / large_bytes},
        "benchmarks": whole,
        "limited_benchmarks": cut,
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
    """One model's scores in evaluate.benchmarks by task, and a row for each sample; `data` has each entry's hash."""
    scores: dict[str, Row] = {}
    rows: list[Row] = []
    limit, seed = params.evaluate.benchmark_limit, params.data_seed
    for extra, digest in zip(params.evaluate.benchmarks, data, strict=True):
        key = alike | {"extra": extra.model_dump(), "limit": limit, "data": digest}
        found, asked = cached(folder, f"{name}-extra", key, partial(benchmarks.run, *model, extra, limit, seed))
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
    labels, data = params.generate.class_labels, [benchmarks.data_hash(extra) for extra in evaluate.benchmarks]
    picked = multiple_choice.choices(rows, pool, params.data_seed) if labels is None else []
    references = {row["id"]: row["response"] for row in rows}
    teacher_tokenizer = loaded["teacher"][1]
    tables: dict[str, pd.DataFrame] = {}
    extra: dict[str, dict[str, Row]] = {}
    samples: list[Row] = []
    for name, (network, tokenizer) in loaded.items():
        print(f"{name}: {len(rows)} items, {len(written)} generations", flush=True)
        own = alike | {"model": loading.file_hashes(*where[name])}
        if labels is None:
            docs = held_out.documents(rows, pool, picked, tokenizer, teacher_tokenizer)
            key = own | {"documents": value_hash(docs), "generations": sorted(written)}
            lm = DistillLM(network, tokenizer, evaluate.batch_tokens, GENERATED_AT_ONCE, evaluate.max_new_tokens)
            items = cached(folder, name, key, partial(held_out.items, lm, docs, written))
        else:
            key = own | {"rows": value_hash(rows), "labels": labels}
            choose = partial(class_labels.items, network, tokenizer, rows, labels, evaluate.batch_tokens)
            items = cached(folder, name, key, choose)
        tables[name] = pd.DataFrame(held_out.compared(items, references, teacher_tokenizer))
        extra[name], asked = extra_results(params, data, name, (network, tokenizer), own, folder)
        samples += asked
    return tables, extra, samples


def timed(networks: dict[str, Any], timing: Latency) -> Row:
    """metrics/latency.json."""
    runs = latency.measure(networks, timing.prompt_tokens, timing.new_tokens, timing.num_warmup_runs, timing.num_runs)
    gain = latency.median_seconds(runs["teacher"]) / latency.median_seconds(runs["distilled"])
    return {
        "models": {name: latency.summary(some) for name, some in runs.items()},
        "latency_gain": round(gain, 3),
        "gain_is": "median milliseconds of a whole answer at batch 1, teacher over distilled",
        "prompt_tokens": timing.prompt_tokens,
        "new_tokens": timing.new_tokens,
        "num_runs": timing.num_runs,
    }


def write_seeds(seeds: dict[str, dict[str, Row]]) -> None:
    """metrics/seeds.csv: each score of the trained students over the training seeds."""
    lines = [{"model": model, "score": score} | row for model in TRAINED for score, row in seeds[model].items()]
    with atomic_file(METRICS / "seeds.csv") as path:
        pd.DataFrame(lines).to_csv(path, index=False, lineterminator="\n")


def write_items(tables: dict[str, pd.DataFrame], runs: list[Run]) -> None:
    """metrics/items.csv: every item of every model and seed, without its text."""
    parts = [tables["teacher"].assign(model="teacher", seed=None)]
    parts += [tables[one.name].assign(model=one.variant, seed=one.seed) for one in runs]
    combined = pd.concat([part.astype({"seed": "Int64"}) for part in parts])
    named = ["model", "seed", "item"]
    columns = [*named, *(name for name in combined.columns if name not in (*named, "generated"))]
    with atomic_file(METRICS / "items.csv") as path:
        combined[columns].to_csv(path, index=False, float_format="%.6g", lineterminator="\n")


def main() -> None:
    params = load_params()
    evaluate, seed = params.evaluate, params.data_seed
    runtime.prepare(params.runtime.threads, seed)
    datasets.disable_progress_bars()
    logging.getLogger("lm_eval").setLevel(logging.ERROR)
    pool = list(read_rows(TEST, "stage clean"))
    rows = subset(pool, evaluate.max_samples, seed)
    written = {row["id"] for row in subset(rows, evaluate.max_generations, seed)}
    teacher, runs = params.local_teacher(params.evaluate.teacher), students(params.training_seeds)
    where: Places = {"teacher": (teacher.model, teacher.revision)}
    where |= {one.name: (str(one.folder), None) for one in runs}
    loaded = load_all(teacher, runs, runtime.compute_dtype(params.runtime.dtype))
    tables, extra, benchmark_samples = measured(params, loaded, where, pool, rows, written)
    names = {"teacher": ["teacher"]} | {
        model: [one.name for one in runs if one.variant == model] for model in ("init", *TRAINED)
    }
    by_seed = {model: [tables[name] for name in own] for model, own in names.items()}
    first = {model: own[0] for model, own in names.items()}
    networks = {model: loaded[name][0] for model, name in first.items()}
    print("latency", flush=True)
    speed = timed(networks, evaluate.latency)
    chance = chance_of(params.generate.class_labels)
    scores = {model: estimates(items, evaluate.bootstrap_resamples, seed, chance) for model, items in by_seed.items()}
    sizes = {
        model: (loading.parameter_count(network), loading.weight_bytes(*where[first[model]]))
        for model, network in networks.items()
    }
    table = main_table(scores, sizes, speed["latency_gain"], chance)
    counts = {"items": len(rows), "held_out": len(pool), "generations": len(written)}
    extra_by_seed = {model: [extra[name] for name in own] for model, own in names.items()}
    found: Row = {**counts, **all_scores(by_seed, scores, sizes, extra_by_seed, chance)}
    if params.generate.class_labels is not None:
        found["classification"] = {
            model: classification.scores(items, evaluate.bootstrap_resamples, seed) for model, items in by_seed.items()
        }
    report = round_numbers(found)
    write_json(METRICS / "evaluate.json", report)
    write_seeds(report["seeds"])
    write_items(tables, runs)
    firsts = {model: tables[name] for model, name in first.items()}
    write_rows(METRICS / "samples.jsonl", samples(rows, firsts, written))
    write_rows(METRICS / "regressions.jsonl", largest(rows, firsts))
    write_rows(BENCHMARK_SAMPLES, benchmark_samples)
    write_json(METRICS / "latency.json", speed)
    write_json(METRICS / "metrics.json", table)
    environment.record("evaluate", params.runtime)
    print(json.dumps(table["goals"], indent=2))


if __name__ == "__main__":
    run_main(main)
