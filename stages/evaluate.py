"""Measures teacher, init, sft and distilled on held-out topics: `python -m stages.evaluate`.

Reads  data/clean/test.jsonl, models/init, models/{sft,distilled}-<seed> of every training seed, metrics/init.json,
       metrics/train, params data_seed, training_seeds, runtime, teachers, generate.class_labels, evaluate
Writes metrics/metrics.json (main table), metrics/evaluate.json (all scores with intervals), metrics/seeds.csv,
       metrics/items.csv, metrics/samples.jsonl, metrics/regressions.jsonl, data/evaluated/benchmark_samples.jsonl,
       metrics/latency.json; metrics/environment/evaluate.json, and measurements in .distill/evaluations, for later runs
       of this stage

Scores of sft and distilled are means over the training seeds. Samples, latency and size are those of the first seed.
"""

import json
import logging
import os
from pathlib import Path

import datasets
import pandas as pd

from distill.core.code import imported_code
from distill.core.errors import run_main
from distill.core.files import atomic_file, file_hash, read_rows, write_json, write_rows
from distill.core.home import home
from distill.core.numbers import round_numbers
from distill.evaluation import benchmarks
from distill.evaluation.goals import few_items_warning
from distill.evaluation.held_out import sample_held_out
from distill.evaluation.latency import measure_latency
from distill.evaluation.measure import Cache, held_out_task, load_models, measure_models, shared_key
from distill.evaluation.regressions import largest_regressions
from distill.evaluation.results import all_scores, by_variant, items_table, main_table, sample_rows, seeds_table
from distill.evaluation.text_responses import task_files
from distill.modeling import environment, runtime
from distill.params.loading import load_params
from distill.params.schema import Params
from distill.students.runs import students

TEST = Path("data/clean/test.jsonl")
METRICS = Path("metrics")
BENCHMARK_SAMPLES = Path("data/evaluated/benchmark_samples.jsonl")


def measurement_cache(params: Params) -> Cache:
    """Earlier measurements, kept outside the stage's outs; another code, environment or params measure again."""
    code = [file_hash(path) for path in [*imported_code(Path(__file__)), *task_files()]]
    key = shared_key(params.evaluate, params.runtime, params.data_seed, code)
    return Cache(home(os.environ, Path.cwd()) / "evaluations", key)


def write_csv(path: Path, table: pd.DataFrame, float_format: str | None = None) -> None:
    with atomic_file(path) as temporary:
        table.to_csv(temporary, index=False, float_format=float_format, lineterminator="\n")


def main() -> None:
    params = load_params()
    evaluate, seed = params.evaluate, params.data_seed
    runtime.prepare(params.runtime.threads, seed)
    datasets.disable_progress_bars()
    logging.getLogger("lm_eval").setLevel(logging.ERROR)

    benchmarks.require_safe(evaluate.benchmarks)
    pool = list(read_rows(TEST, "stage clean"))
    held_out = sample_held_out(pool, evaluate.max_samples, evaluate.max_generations, seed)
    dtype = runtime.compute_dtype(params.runtime.dtype)
    models = load_models(params.local_teacher(evaluate.teacher), students(params.training_seeds), dtype)
    task = held_out_task(held_out, params.generate.class_labels, models[0].tokenizer, evaluate, seed)

    measurements = measure_models(models, task, evaluate, measurement_cache(params))
    results = by_variant(models, measurements)
    print("latency", flush=True)
    latency = measure_latency({name: model.network for name, model in results.first.items()}, evaluate.latency)

    scores = results.scores(evaluate.bootstrap_resamples, seed, task.chance)
    table = main_table(scores, results.sizes, latency["latency_gain"], task.chance)
    report = all_scores(results, scores, held_out, task.chance)
    report = round_numbers(report | task.report(results.items, evaluate.bootstrap_resamples, seed))

    write_json(METRICS / "evaluate.json", report)
    write_csv(METRICS / "seeds.csv", seeds_table(report["seeds"]))
    write_csv(METRICS / "items.csv", items_table(models, measurements.items), float_format="%.6g")
    write_rows(METRICS / "samples.jsonl", sample_rows(held_out, results.first_items))
    write_rows(METRICS / "regressions.jsonl", largest_regressions(held_out.rows, results.first_items))
    write_rows(BENCHMARK_SAMPLES, measurements.benchmark_samples)
    write_json(METRICS / "latency.json", latency)
    write_json(METRICS / "metrics.json", table)
    environment.record("evaluate", params.runtime)
    print(json.dumps(table["goals"], indent=2), *few_items_warning(len(held_out.rows)), sep="\n")


if __name__ == "__main__":
    run_main(main, os.environ)
