"""Measures teacher, init, sft and distilled side by side on held-out topics: `python -m stages.evaluate`.

Reads  data/clean/test.jsonl, models/{init,sft,distilled}, params seed, runtime, teachers, evaluate
Writes metrics/metrics.json (main table), metrics/evaluate.json (all scores with intervals), metrics/items.csv,
       metrics/samples.jsonl, metrics/latency.json; metrics/environment/evaluate.json
"""

import json
import logging
import random
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Any

import datasets
import lm_eval
import numpy as np
import pandas as pd
from lm_eval.models.huggingface import HFLM
from lm_eval.tasks import TaskManager
from lm_eval.tasks._yaml_loader import load_yaml

from distill import environment, latency, models
from distill import params as params_file
from distill.bootstrap import Estimate, ratio_interval
from distill.chat import end_of_turn, render
from distill.errors import UserError, run
from distill.files import read_rows, whole_file, write_json, write_rows
from distill.goals import GOALS
from distill.lm import DistillLM, places
from distill.params import Evaluate, LocalTeacher

TEST = Path("data/clean/test.jsonl")
STUDENTS = {name: Path("models") / name for name in ("init", "sft", "distilled")}
METRICS = Path("metrics")
TASKS = Path(__file__).parent.parent / "distill" / "tasks"
CHOICES = 4
NEAREST = 12  # rows of like length that the wrong answers are drawn from
CHANCE = 1 / CHOICES

Row = dict[str, Any]


def subset(rows: list[Row], count: int, seed: int) -> list[Row]:
    """At most `count` rows, drawn by the seed, in their own order."""
    chosen = set(random.Random(seed).sample(range(len(rows)), min(count, len(rows))))
    return [row for place, row in enumerate(rows) if place in chosen]


def choices(rows: list[Row], pool: list[Row], seed: int) -> list[tuple[list[int], int]]:
    """For each row the indices into `pool` of four answers, and the place of its own among them.

    The wrong ones are answers to other prompts, all different in text, drawn by the seed from the NEAREST ones
    in length: a sum of log-probabilities would otherwise tell long from short. Raises UserError where the pool
    is too small.
    """
    lengths = [len(row["response"]) for row in pool]
    places = {row["id"]: place for place, row in enumerate(pool)}
    result = []
    for row in rows:
        own = places[row["id"]]
        texts, near = {row["response"]}, []
        for place in sorted(range(len(pool)), key=lambda place: (abs(lengths[place] - lengths[own]), place)):
            if pool[place]["prompt_id"] != row["prompt_id"] and pool[place]["response"] not in texts:
                near.append(place)
                texts.add(pool[place]["response"])
            if len(near) == NEAREST:
                break
        if len(near) < CHOICES - 1:
            raise UserError(f"{TEST} has too few answers to choose from; raise clean.test_topics.")
        draw = random.Random(f"{seed}/{row['id']}")
        picked = [own, *draw.sample(near, CHOICES - 1)]
        draw.shuffle(picked)
        result.append((picked, picked.index(own)))
    return result


def documents(
    rows: list[Row], pool: list[Row], picked: list[tuple[list[int], int]], tokenizer: Any, teacher_tokenizer: Any
) -> list[Row]:
    """The rows as lm-eval documents for one model: its own chat template, and its own end of turn after an answer."""

    def ended(row: Row, own: Any) -> str:
        return row["response"] + (own.decode([end_of_turn(own)]) if row["finish_reason"] == "stop" else "")

    return [
        {
            "id": row["id"],
            "prompt": render(tokenizer, row["messages"]),
            "response": ended(row, tokenizer),
            "choices": [ended(pool[place], tokenizer) for place in indices],
            "answer": answer,
            "teacher_tokens": [list(place) for place in places(teacher_tokenizer, ended(row, teacher_tokenizer))[1]],
        }
        for row, (indices, answer) in zip(rows, picked, strict=True)
    ]


def harness(lm: Any, tasks: list[Any], seed: int, **options: Any) -> Any:
    """lm-eval's results with the samples of every task."""
    return lm_eval.simple_evaluate(
        model=lm,
        tasks=tasks,
        bootstrap_iters=0,
        random_seed=seed,
        numpy_random_seed=seed,
        torch_random_seed=seed,
        fewshot_random_seed=seed,
        **options,
    )


def own_tasks(lm: DistillLM, docs: list[Row], generations: set[str], seed: int) -> pd.DataFrame:
    """Our three tasks on one model: a row for each item with its scores."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        files = {
            "teacher_choice": docs,
            "teacher_text": docs,
            "teacher_generation": [doc for doc in docs if doc["id"] in generations],
        }
        tasks = []
        for task, rows in files.items():
            write_rows(folder / f"{task}.jsonl", rows)
            data = {"data_files": {"test": str(folder / f"{task}.jsonl")}, "cache_dir": str(folder / "cache")}
            tasks.append(load_yaml(TASKS / f"{task}.yaml") | {"dataset_kwargs": data})
        manager = TaskManager(include_defaults=False)
        samples = harness(lm, tasks, seed, task_manager=manager)["samples"]
    items: dict[str, Row] = {doc["id"]: {"item": doc["id"]} for doc in docs}
    for sample in samples["teacher_choice"]:
        items[sample["doc"]["id"]] |= {"correct": sample["acc"], "correct_norm": sample["acc_norm"]}
    for sample in samples["teacher_text"]:
        (nats, tokens), (agreed, _) = sample["nll"], sample["agreed"]
        size = len(sample["doc"]["response"].encode())
        items[sample["doc"]["id"]] |= {"nll": nats, "tokens": tokens, "bytes": size, "agreed": agreed}
    for sample in samples["teacher_generation"]:
        items[sample["doc"]["id"]] |= {"rouge_l": sample["rouge_l"], "generated": sample["filtered_resps"][0]}
    return pd.DataFrame(items.values())


def token_overlap(generated: str, reference: str, tokenizer: Any) -> tuple[int, int]:
    """How many tokens of two texts are the same at the same place, of how many in the longer one."""
    one, other = (tokenizer(text, add_special_tokens=False).input_ids for text in (generated, reference))
    return sum(left == right for left, right in zip(one, other, strict=False)), max(len(one), len(other))


def estimates(items: pd.DataFrame, resamples: int, seed: int) -> dict[str, Estimate]:
    """Every score of one model with its interval."""

    def over(top: str, bottom: str | None = None, **options: Any) -> Estimate:
        rows = items[items[top].notna()]
        counts = np.ones(len(rows)) if bottom is None else rows[bottom].to_numpy(float)
        return ratio_interval(rows[top].to_numpy(float), counts, resamples, seed, **options)

    return {
        "accuracy": over("correct"),
        "accuracy_norm": over("correct_norm"),
        "accuracy_above_chance": over("correct", transform=lambda share: (share - CHANCE) / (1 - CHANCE)),
        "perplexity": over("nll", "tokens", transform=np.exp),
        "bits_per_byte": over("nll", "bytes", transform=lambda nats: nats / np.log(2)),
        "agreement": over("agreed", "tokens"),
        "rouge_l": over("rouge_l"),
        "generated_agreement": over("generated_same", "generated_tokens"),
    }


def rounded(value: float) -> float:
    """Six significant digits: the same text on every run, and no more than the intervals warrant."""
    return float(f"{value:.6g}")


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


def bytes_on_disk(model: str) -> int:
    """Bytes of a model's weights: the GGUF file, or the safetensors of a folder or of the hub's cache."""
    path = Path(models.locate(model))
    if path.is_file():
        return path.stat().st_size
    if not path.is_dir():
        from huggingface_hub import snapshot_download

        path = Path(snapshot_download(model, allow_patterns="*.safetensors"))
    return sum(file.stat().st_size for file in path.glob("*.safetensors"))


def extra_tasks(network: Any, tokenizer: Any, evaluate: Evaluate, seed: int) -> dict[str, Any]:
    """The scores of lm-eval's own tasks, by lm-eval's own model class; UserError where the data is out of reach."""
    lm = HFLM(pretrained=network, tokenizer=tokenizer, batch_size=8)
    try:
        results = harness(lm, list(evaluate.extra_tasks), seed, limit=evaluate.extra_limit)["results"]
    except (ConnectionError, OSError, KeyError, ValueError, datasets.exceptions.DatasetNotFoundError) as error:
        raise UserError(
            f"evaluate.extra_tasks {evaluate.extra_tasks}: {type(error).__name__}: {str(error)[:300]}. "
            "Is the name one of lm-eval's (`lm-eval ls tasks`), and can this machine reach the task's data? "
            "Remove it from evaluate.extra_tasks otherwise."
        ) from None
    return {
        task: {key: rounded(value) for key, value in sorted(scores.items()) if isinstance(value, float)}
        for task, scores in results.items()
    }


def main() -> None:
    params = params_file.load()
    evaluate, seed = params.evaluate, params.seed
    models.prepare(params.runtime.threads, seed)
    datasets.disable_progress_bars()
    logging.getLogger("lm_eval").setLevel(logging.ERROR)
    for name, folder in STUDENTS.items():
        if not (folder / "model.safetensors").exists():
            raise UserError(f"{folder} has no model: stage train@{name} writes it (`dvc repro train@{name}`).")
    pool = list(read_rows(TEST, "stage clean"))
    rows = subset(pool, evaluate.max_items, seed)
    picked = choices(rows, pool, seed)
    generations = {row["id"] for row in subset(rows, evaluate.max_generations, seed)}
    teacher = next(item for item in params.teachers if item.name == evaluate.teacher)
    assert isinstance(teacher, LocalTeacher), "the schema refuses others"
    dtype = models.compute_dtype(params.runtime.dtype)
    loaded = {"teacher": models.load(teacher.model, dtype, teacher.revision, teacher.sha256)}
    loaded |= {name: models.load(str(folder), dtype) for name, folder in STUDENTS.items()}
    teacher_tokenizer = loaded["teacher"][1]
    references = {row["id"]: row["response"] for row in rows}
    tables, extra = {}, {}
    for name, (network, tokenizer) in loaded.items():
        print(f"{name}: {len(rows)} items, {len(generations)} generations", flush=True)
        lm = DistillLM(network, tokenizer, evaluate.batch_tokens, 64, evaluate.max_new_tokens)
        docs = documents(rows, pool, picked, tokenizer, teacher_tokenizer)
        items = own_tasks(lm, docs, generations, seed)
        overlap = [
            token_overlap(text, references[item], teacher_tokenizer) if isinstance(text, str) else (np.nan, np.nan)
            for item, text in zip(items["item"], items["generated"], strict=True)
        ]
        items[["generated_same", "generated_tokens"]] = overlap
        tables[name] = items
        if evaluate.extra_tasks:
            extra[name] = extra_tasks(network, tokenizer, evaluate, seed)
    print("latency", flush=True)
    timing = evaluate.latency
    runs = latency.measure(
        {name: network for name, (network, _) in loaded.items()},
        timing.prompt_tokens,
        timing.new_tokens,
        timing.warmup,
        timing.runs,
    )
    gain = latency.median_seconds(runs["teacher"]) / latency.median_seconds(runs["distilled"])
    scores = {name: estimates(items, evaluate.bootstrap, seed) for name, items in tables.items()}
    where = {"teacher": teacher.model} | {name: str(folder) for name, folder in STUDENTS.items()}
    sizes = {name: (models.parameter_count(loaded[name][0]), bytes_on_disk(where[name])) for name in loaded}
    table = main_table(scores, sizes, gain)
    write_json(
        METRICS / "evaluate.json",
        {
            "items": len(rows),
            "generations": len(generations),
            "models": {
                name: {
                    key: {part: rounded(number) for part, number in asdict(value).items()}
                    for key, value in score.items()
                }
                for name, score in scores.items()
            },
            "compression": {
                "parameters": rounded(sizes["distilled"][0] / sizes["teacher"][0]),
                "bytes": rounded(sizes["distilled"][1] / sizes["teacher"][1]),
            },
            "extra_tasks": extra,
        },
    )
    combined = pd.concat([items.assign(model=name) for name, items in tables.items()])
    columns = ["model", "item", *(name for name in combined.columns if name not in ("model", "item", "generated"))]
    with whole_file(METRICS / "items.csv") as path:
        combined[columns].to_csv(path, index=False, float_format="%.6g", lineterminator="\n")
    write_rows(METRICS / "samples.jsonl", samples(rows, tables, generations))
    write_json(
        METRICS / "latency.json",
        {
            "models": {name: latency.summary(some) for name, some in runs.items()},
            "latency_gain": round(gain, 3),
            "gain_is": "median milliseconds of a whole answer at batch 1, teacher over distilled",
            "prompt_tokens": timing.prompt_tokens,
            "new_tokens": timing.new_tokens,
            "runs": timing.runs,
        },
    )
    write_json(METRICS / "metrics.json", table)
    environment.record("evaluate", params.runtime)
    print(json.dumps(table["goals"], indent=2))


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


if __name__ == "__main__":
    run(main)
