"""Our three tasks on held-out rows, through lm-eval: a multiple choice, the teacher's text, a generated answer."""

import tempfile
from pathlib import Path
from typing import Any

from lm_eval.tasks import TaskManager
from lm_eval.tasks._yaml_loader import load_yaml
from scipy.special import softmax

from distill.core.files import write_rows
from distill.evaluation.lm_eval_model import DistillLM, places
from distill.evaluation.lm_eval_run import measure_ours, whole
from distill.modeling.chat import end_of_turn, render

TASKS = Path(__file__).parent / "tasks"
Row = dict[str, Any]


def task_files() -> list[Path]:
    """The YAML files of the tasks."""
    return sorted(TASKS.glob("*.yaml"))


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


def items(lm: DistillLM, docs: list[Row], generations: set[str]) -> list[Row]:
    """A row for each document with its scores and, where it is one of `generations`, the text that was generated.

    `confidence` is the probability of the picked answer among the four: the softmax of their log-likelihoods.
    Raises UserError where lm-eval measured fewer documents than it was given.
    """
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
        loaded = TaskManager(include_defaults=False).load(tasks)
        samples = whole(measure_ours(lm, loaded))["samples"]
    found: dict[str, Row] = {doc["id"]: {"item": doc["id"]} for doc in docs}
    for sample in samples["teacher_choice"]:
        confidence = float(softmax([nats for nats, _ in sample["filtered_resps"]]).max())
        scores = {"correct": sample["acc"], "correct_norm": sample["acc_norm"], "confidence": confidence}
        found[sample["doc"]["id"]] |= scores
    for sample in samples["teacher_text"]:
        (nats, tokens), (agreed, _) = sample["nll"], sample["top1_tokens"]
        size = len(sample["doc"]["response"].encode())
        found[sample["doc"]["id"]] |= {"nll": nats, "tokens": tokens, "bytes": size, "top1_tokens": agreed}
    for sample in samples["teacher_generation"]:
        text = sample["filtered_resps"][0]
        found[sample["doc"]["id"]] |= {"rouge_l": sample["rouge_l"], "ended": sample["ended"], "generated": str(text)}
    return list(found.values())


def compared(rows: list[Row], references: dict[str, str], tokenizer: Any) -> list[Row]:
    """The items with their generated texts held against the references in the teacher's tokens."""
    return [
        row | (_overlap(row["generated"], references[row["item"]], tokenizer) if "generated" in row else {})
        for row in rows
    ]


def _overlap(generated: str, reference: str, tokenizer: Any) -> dict[str, int]:
    """How many tokens of two texts are the same at the same place, of the longer one's; and both lengths."""
    one, other = (tokenizer(text, add_special_tokens=False).input_ids for text in (generated, reference))
    return {
        "matching_tokens": sum(left == right for left, right in zip(one, other, strict=False)),
        "longer_length": max(len(one), len(other)),
        "generated_length": len(one),
        "reference_length": len(other),
    }
