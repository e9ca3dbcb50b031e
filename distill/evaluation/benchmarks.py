"""Benchmarks of lm-eval, and of YAML files of tasks, on one model by lm-eval's own model class."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lm_eval.tasks._yaml_loader import load_yaml
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from distill.core.files import Row, file_hash, value_hash
from distill.core.lm_eval_tasks import loading_errors, task_manager
from distill.core.numbers import round_number
from distill.core.task_code import require_safe_task, task_name
from distill.evaluation.lm_eval_run import run_benchmark, to_json, truncated_tasks
from distill.params.evaluate import Benchmark

BATCH_SIZE = 8
PARAM = "evaluate.benchmarks"


def require_safe(benchmarks: Sequence[Benchmark]) -> None:
    """Raises UserError for a benchmark that would run Python which params do not allow, or a model's code."""
    for benchmark in benchmarks:
        require_safe_task(PARAM, benchmark.task)


def load_tasks(benchmark: Benchmark) -> list[Any]:
    """lm-eval's task objects with their data, at the benchmark's revision.

    Raises UserError where the task is unknown or its data cannot be loaded. A group is refused where a revision is
    given, since each of its tasks has its own data set.
    """
    require_safe_task(PARAM, benchmark.task)
    with loading_errors(PARAM, benchmark.task, "Otherwise remove it from evaluate.benchmarks."):
        return list(task_manager().load(_spec(benchmark))["tasks"].values())


def data_hash(benchmark: Benchmark) -> str:
    """SHA-256 of what scores depend on besides model and packages: configuration, files and documents."""
    parts: list[Any] = []
    for task in load_tasks(benchmark):
        config = {key: value for key, value in task.dump_config().items() if key != "fewshot_config"}  # repeats others
        parts.append([to_json(config), to_json(list(task.eval_docs)), to_json(list(task.fewshot_docs() or []))])
    path = Path(task_name(benchmark.task))
    if path.is_file():
        folder = path.parent
        files = [file for pattern in ("*.yaml", "*.py") for file in folder.glob(pattern)]
        parts += [[file.name, file_hash(file)] for file in sorted(files)]
    return value_hash(parts)


def run(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, benchmark: Benchmark, limit: int | None, seed: int
) -> tuple[dict[str, Row], list[Row]]:
    """Each task's scores, and a row for each sample with the model's input, its responses and their scores.

    A task that the `limit` truncated has `limited` true, with `documents` of `total_documents` measured.
    """
    from lm_eval.models.huggingface import HFLM  # seconds to import, for an option that is off by default

    load_tasks(benchmark)  # raises before anything is measured
    results = run_benchmark(
        HFLM(pretrained=model, tokenizer=tokenizer, batch_size=BATCH_SIZE),
        _spec(benchmark),
        seed,
        task_manager=task_manager(),
        limit=limit,
        num_fewshot=benchmark.num_fewshot,
        apply_chat_template=benchmark.apply_chat_template,
        fewshot_as_multiturn=benchmark.fewshot_as_multiturn,
    )
    truncated = truncated_tasks(results)
    scores = {}
    for task, values in results["results"].items():
        count = results["n-samples"].get(task, {})
        scores[task] = {
            "limited": task in truncated,
            "documents": count.get("effective"),
            "total_documents": count.get("original"),
            "num_fewshot": results["n-shot"].get(task),
            "apply_chat_template": benchmark.apply_chat_template,
            "revision": benchmark.revision,
            "scores": {key: round_number(value) for key, value in sorted(values.items()) if isinstance(value, float)},
        }
    return scores, [row for task, rows in sorted(results["samples"].items()) for row in _samples(task, rows)]


def split_limited(scores: dict[str, dict[str, Row]]) -> tuple[dict[str, dict[str, Row]], dict[str, dict[str, Row]]]:
    """The scores of each model in two: tasks measured on all documents, and tasks that a limit truncated."""
    complete: dict[str, dict[str, Row]] = {}
    limited: dict[str, dict[str, Row]] = {}
    for model, tasks in scores.items():
        for task, row in tasks.items():
            (limited if row["limited"] else complete).setdefault(model, {})[task] = row
    return complete, limited


def _spec(benchmark: Benchmark) -> str | dict[str, Any]:
    """What lm-eval loads: the name or path, or the configuration of a single task with its data pinned."""
    if benchmark.revision is None:
        return task_name(benchmark.task)
    entry = task_manager().task_index.get(benchmark.task)
    path = entry.yaml_path if entry else Path(task_name(benchmark.task))
    if path is None or not Path(path).is_file():
        raise KeyError(f"{benchmark.task} must be a single task of a YAML file, for a revision to pin its data")
    config = load_yaml(path)
    if not isinstance(config.get("task"), str):
        raise KeyError(f"{benchmark.task} is a group, and a revision pins one data set; list its tasks one by one")
    return config | {"dataset_kwargs": (config.get("dataset_kwargs") or {}) | {"revision": benchmark.revision}}


def _samples(task: str, rows: list[Row]) -> list[Row]:
    """The rows of data/evaluated/benchmark_samples.jsonl, in lm-eval's own words."""
    return [
        {
            "task": task,
            "doc_id": row["doc_id"],
            "filter": row["filter"],
            "doc": to_json(row["doc"]),
            "target": to_json(row["target"]),
            "arguments": to_json(row["arguments"]),
            "resps": to_json(row["resps"]),
            "filtered_resps": to_json(row["filtered_resps"]),
            "scores": {name: to_json(row[name]) for name in row["metrics"]},
        }
        for row in rows
    ]
