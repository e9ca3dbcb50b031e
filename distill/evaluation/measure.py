"""Measurement of models, through a cache: items of the held-out task, and scores in benchmarks."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import pandas as pd
import torch
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from distill.core.files import Row
from distill.evaluation import benchmarks
from distill.evaluation.cache import cached
from distill.evaluation.class_labels import ClassLabelTask
from distill.evaluation.held_out import HeldOut, HeldOutTask, with_token_match
from distill.evaluation.text_responses import TextTask
from distill.modeling import environment, loading
from distill.params.evaluate import Benchmark, Evaluate
from distill.params.schema import Runtime
from distill.params.teachers import LocalTeacher
from distill.students.runs import Run, require_model


@dataclass(frozen=True)
class Model:
    """A loaded model: the teacher, or the student of a run.

    `source` and `revision` are what it was loaded from, `variant` is teacher, init, sft or distilled.
    """

    name: str
    variant: str
    seed: int | None
    source: str
    revision: str | None
    network: PreTrainedModel
    tokenizer: PreTrainedTokenizerFast

    @property
    def size(self) -> tuple[int, int]:
        """Number of parameters, and bytes of the weights on disk."""
        return loading.parameter_count(self.network), loading.weight_bytes(self.source, self.revision)


@dataclass(frozen=True)
class Cache:
    """The folder of earlier measurements, and the key that all measurements share."""

    folder: Path
    key: Row


@dataclass
class Measurements:
    """The results by name of the model: its items, and its scores in benchmarks; and all benchmark samples."""

    items: dict[str, pd.DataFrame] = field(default_factory=dict)
    benchmarks: dict[str, dict[str, Row]] = field(default_factory=dict)
    benchmark_samples: list[Row] = field(default_factory=list)


def load_models(teacher: LocalTeacher, runs: Sequence[Run], dtype: torch.dtype) -> list[Model]:
    """The teacher, then the student of each run. Raises UserError where a student is missing."""
    for run in runs:
        require_model(run)
    loaded = loading.load_teacher(teacher, dtype)
    models = [Model("teacher", "teacher", None, teacher.model, teacher.revision, *loaded)]
    for run in runs:
        source = str(run.folder)
        models.append(Model(run.name, run.variant, run.seed, source, None, *loading.load_model(source, dtype)))
    return models


def shared_key(evaluate: Evaluate, runtime: Runtime, seed: int, code: Sequence[str]) -> Row:
    """What every measurement depends on besides model and task; `code` has the hashes of the code and task files."""
    return {
        "seed": seed,
        "batch_tokens": evaluate.batch_tokens,
        "max_new_tokens": evaluate.max_new_tokens,
        "environment": environment.manifest(runtime),
        "code": list(code),
    }


def held_out_task(
    held_out: HeldOut,
    class_labels: Sequence[str] | None,
    teacher_tokenizer: PreTrainedTokenizerFast,
    evaluate: Evaluate,
    seed: int,
) -> HeldOutTask:
    """The task of these params: pick one of `class_labels`, or write text where they are None."""
    if class_labels is not None:
        return ClassLabelTask(held_out, class_labels, evaluate.batch_tokens)
    return TextTask(held_out, teacher_tokenizer, evaluate.batch_tokens, evaluate.max_new_tokens, seed)


def measure_models(models: Sequence[Model], task: HeldOutTask, evaluate: Evaluate, cache: Cache) -> Measurements:
    """Measures every model; the first one is the teacher."""
    results, held_out = Measurements(), task.held_out
    hashes = [benchmarks.data_hash(benchmark) for benchmark in evaluate.benchmarks]
    for model in models:
        print(f"{model.name}: {len(held_out.rows)} {task.unit}, {len(held_out.generation_ids)} generations", flush=True)
        own = Cache(cache.folder, cache.key | {"model": loading.file_hashes(model.source, model.revision)})
        key, measure = task.prepare(model.network, model.tokenizer)
        items = cached(own.folder, model.name, own.key | key, measure)
        items = with_token_match(items, held_out.references, models[0].tokenizer)
        results.items[model.name] = pd.DataFrame(items)
        results.benchmarks[model.name] = {}
        for benchmark, data in zip(evaluate.benchmarks, hashes, strict=True):
            scores, samples = _run_benchmark(model, benchmark, evaluate.benchmark_limit, data, own)
            results.benchmarks[model.name] |= scores
            results.benchmark_samples += [{"model": model.name} | row for row in samples]
    return results


def _run_benchmark(
    model: Model, benchmark: Benchmark, limit: int | None, data: str, cache: Cache
) -> tuple[dict[str, Row], list[Row]]:
    """One model's scores in the tasks of a benchmark and its samples; `data` is the benchmark's data hash."""
    key = cache.key | {"benchmark": benchmark.model_dump(), "limit": limit, "data": data}
    seed = cache.key["seed"]
    make = partial(benchmarks.run, model.network, model.tokenizer, benchmark, limit, seed)
    return cached(cache.folder, f"{model.name}-benchmark", key, make)


def measure_items(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerFast,
    task: HeldOutTask,
    teacher_tokenizer: PreTrainedTokenizerFast,
) -> list[Row]:
    """One model's items, measured without the cache."""
    _, measure = task.prepare(model, tokenizer)
    return with_token_match(measure(), task.held_out.references, teacher_tokenizer)
