"""lm-eval's own tasks, and tasks of a YAML file, on one model by lm-eval's own model class."""

from functools import cache
from pathlib import Path
from typing import Any

import datasets
from lm_eval.tasks import TaskManager
from lm_eval.tasks._yaml_loader import load_yaml

from distill.core.errors import UserError
from distill.core.files import file_hash, value_hash
from distill.core.numbers import round_number
from distill.evaluation.lm_eval_run import limited, measure, plain
from distill.params.evaluate import Benchmark

BATCH = 8
Row = dict[str, Any]


@cache
def _manager() -> TaskManager:
    """What knows lm-eval's tasks: it reads thousands of files, once."""
    return TaskManager()


def loaded(extra: Benchmark) -> list[Any]:
    """lm-eval's task objects with their data, which is at the revision asked for.

    Raises UserError where there is no such task, its data is out of reach, or it is a group, whose tasks have data
    sets of their own, and a revision is asked for.
    """
    try:
        return list(_manager().load(_spec(extra))["tasks"].values())
    except (OSError, KeyError, ValueError, ImportError, datasets.exceptions.DatasetsError) as error:
        reason = (str(error).strip().splitlines() or [""])[0][:300]
        raise UserError(
            f"evaluate.benchmarks: {extra.task!r} cannot be loaded ({type(error).__name__}: {reason}). Is it a name "
            "that `lm-eval ls tasks` lists or the path of a task's YAML file, and can this machine reach its data? "
            "Remove it from evaluate.benchmarks otherwise."
        ) from None


def data_hash(extra: Benchmark) -> str:
    """SHA-256 of all that an entry's scores depend on beside model and packages: configuration, files, documents."""
    parts: list[Any] = []
    for task in loaded(extra):
        config = {key: part for key, part in task.dump_config().items() if key != "fewshot_config"}  # repeats the rest
        parts.append([plain(config), plain(list(task.eval_docs)), plain(list(task.fewshot_docs() or []))])
    if Path(extra.task).is_file():
        beside = [path for pattern in ("*.yaml", "*.py") for path in Path(extra.task).parent.glob(pattern)]
        parts += [[path.name, file_hash(path)] for path in sorted(beside)]
    return value_hash(parts)


def run(network: Any, tokenizer: Any, extra: Benchmark, limit: int | None, seed: int) -> tuple[Row, list[Row]]:
    """Each task's scores, and a row for each sample with what was asked, what the model said and its scores.

    A task that the `limit` cut says so: `limited` is true, and `documents` and `of` are how many of how many.
    """
    from lm_eval.models.huggingface import HFLM  # seconds to import, for an option that is off by default

    loaded(extra)  # raises where measuring would fail halfway
    lm = HFLM(pretrained=network, tokenizer=tokenizer, batch_size=BATCH)
    results = measure(
        lm,
        [_spec(extra)],
        seed,
        task_manager=_manager(),
        limit=limit,
        num_fewshot=extra.num_fewshot,
        apply_chat_template=extra.apply_chat_template,
        fewshot_as_multiturn=extra.fewshot_as_multiturn,
    )
    cut = limited(results)
    scores = {}
    for task, values in results["results"].items():
        count = results["n-samples"].get(task, {})
        scores[task] = {
            "limited": task in cut,
            "documents": count.get("effective"),
            "of": count.get("original"),
            "num_fewshot": results["n-shot"].get(task),
            "chat_template": extra.apply_chat_template,
            "revision": extra.revision,
            "scores": {key: round_number(value) for key, value in sorted(values.items()) if isinstance(value, float)},
        }
    return scores, [row for task, rows in sorted(results["samples"].items()) for row in _samples(task, rows)]


def parted(found: dict[str, Row]) -> tuple[dict[str, Row], dict[str, Row]]:
    """The models' tasks that were measured on all their documents, and those that a limit cut, kept apart."""
    whole = {name: {task: row for task, row in tasks.items() if not row["limited"]} for name, tasks in found.items()}
    cut = {name: {task: row for task, row in tasks.items() if row["limited"]} for name, tasks in found.items()}
    return {name: rows for name, rows in whole.items() if rows}, {name: rows for name, rows in cut.items() if rows}


def _spec(extra: Benchmark) -> Any:
    """What lm-eval loads: the name or path, or the configuration of a single task with its data pinned."""
    if extra.revision is None:
        return extra.task
    entry = _manager().task_index.get(extra.task)
    path = entry.yaml_path if entry else Path(extra.task)
    if path is None or not Path(path).is_file():
        raise KeyError(f"{extra.task} is no single task of a YAML file, so that a revision cannot pin its data")
    config = load_yaml(path)
    if not isinstance(config.get("task"), str):
        raise KeyError(f"{extra.task} is a group, and a revision is that of one data set; name its tasks one by one")
    return config | {"dataset_kwargs": (config.get("dataset_kwargs") or {}) | {"revision": extra.revision}}


def _samples(task: str, rows: list[Row]) -> list[Row]:
    return [
        {
            "task": task,
            "document": row["doc_id"],
            "filter": row["filter"],
            "doc": plain(row["doc"]),
            "target": plain(row["target"]),
            "asked": plain(row["arguments"]),
            "answered": plain(row["filtered_resps"]),
            "scores": {name: plain(row[name]) for name in row["metrics"]},
        }
        for row in rows
    ]
