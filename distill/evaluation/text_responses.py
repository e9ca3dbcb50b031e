"""Text responses on held-out rows, by three lm-eval tasks: multiple choice, teacher-forced scores, generation."""

import tempfile
from collections.abc import Callable, Set
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path

import pandas as pd
from lm_eval.tasks import TaskManager
from lm_eval.tasks._yaml_loader import load_yaml
from scipy.special import softmax
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from distill.core.files import Row, value_hash, write_rows
from distill.evaluation.held_out import HeldOut
from distill.evaluation.lm_eval_model import DistillLM, token_positions
from distill.evaluation.lm_eval_run import require_complete, run_held_out
from distill.evaluation.multiple_choice import CHANCE, Choices, draw_choices
from distill.modeling.chat import end_of_turn
from distill.modeling.templates import render

TASKS = Path(__file__).parent / "tasks"


@dataclass(frozen=True)
class TextTask:
    """A HeldOutTask of free text, compared with the teacher's responses."""

    held_out: HeldOut
    teacher_tokenizer: PreTrainedTokenizerFast
    batch_tokens: int
    max_new_tokens: int
    seed: int

    unit = "responses"
    chance = CHANCE

    @cached_property
    def choices(self) -> list[Choices]:
        """The choices of each row, the same for all models."""
        return draw_choices(self.held_out.rows, self.held_out.pool, self.seed)

    def prepare(
        self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast
    ) -> tuple[Row, Callable[[], list[Row]]]:
        """See HeldOutTask."""
        docs = documents(self.held_out, self.choices, tokenizer, self.teacher_tokenizer)
        key = {"documents": value_hash(docs), "generations": sorted(self.held_out.generation_ids)}
        lm = DistillLM(model, tokenizer, self.batch_tokens, self.max_new_tokens)
        return key, partial(text_items, lm, docs, self.held_out.generation_ids)

    def report(self, items: dict[str, list[pd.DataFrame]], resamples: int, seed: int) -> Row:
        """See HeldOutTask: the metrics of all tasks say everything."""
        return {}


def task_files() -> list[Path]:
    """The YAML files of the tasks."""
    return sorted(TASKS.glob("*.yaml"))


def documents(
    held_out: HeldOut,
    choices: list[Choices],
    tokenizer: PreTrainedTokenizerFast,
    teacher_tokenizer: PreTrainedTokenizerFast,
) -> list[Row]:
    """The rows as lm-eval documents for one model, with its chat template.

    `response` and `choice_responses` are the teacher's plain texts. `continuation` and `choices` are texts to score:
    each ends with the model's end of turn where the teacher ended its response.
    """
    return [
        {
            "id": row["id"],
            "prompt": render(tokenizer, row["messages"]),
            "response": row["response"],
            "continuation": with_end_of_turn(row, tokenizer),
            "choice_responses": [held_out.pool[index]["response"] for index in indices],
            "choices": [with_end_of_turn(held_out.pool[index], tokenizer) for index in indices],
            "answer": right,
            "teacher_tokens": [
                list(position)
                for position in token_positions(teacher_tokenizer, with_end_of_turn(row, teacher_tokenizer))[1]
            ],
        }
        for row, (indices, right) in zip(held_out.rows, choices, strict=True)
    ]


def with_end_of_turn(row: Row, tokenizer: PreTrainedTokenizerFast) -> str:
    """The row's response, followed by the tokenizer's end-of-turn marker unless the response was truncated."""
    end = tokenizer.decode([end_of_turn(tokenizer)]) if row["finish_reason"] == "stop" else ""
    return row["response"] + end


def text_items(lm: DistillLM, docs: list[Row], generation_ids: Set[str]) -> list[Row]:
    """A row of scores for each document; those in `generation_ids` have a generated text too.

    `confidence` is the probability of the picked choice: the softmax of the choices' log-likelihoods. Raises UserError
    where lm-eval measured fewer documents than it was given.
    """
    samples = _run(lm, docs, generation_ids)
    items: dict[str, Row] = {doc["id"]: {"item": doc["id"]} for doc in docs}
    for sample in samples["teacher_choice"]:
        confidence = float(softmax([nats for nats, _ in sample["filtered_resps"]]).max())
        scores = {"correct": sample["acc"], "correct_norm": sample["acc_norm"], "confidence": confidence}
        items[sample["doc"]["id"]] |= scores
    for sample in samples["teacher_text"]:
        (nats, tokens), (top1_tokens, _) = sample["nll"], sample["top1_tokens"]
        num_bytes = len(sample["doc"]["response"].encode())
        items[sample["doc"]["id"]] |= {"nll": nats, "tokens": tokens, "bytes": num_bytes, "top1_tokens": top1_tokens}
    for sample in samples["teacher_generation"]:
        generated = str(sample["filtered_resps"][0])
        scores = {"rouge_l": sample["rouge_l"], "ended": sample["ended"], "generated": generated}
        items[sample["doc"]["id"]] |= scores
    return list(items.values())


def _run(lm: DistillLM, docs: list[Row], generation_ids: Set[str]) -> dict[str, list[Row]]:
    """lm-eval's samples of the three tasks."""
    task_docs = {
        "teacher_choice": docs,
        "teacher_text": docs,
        "teacher_generation": [doc for doc in docs if doc["id"] in generation_ids],
    }
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        tasks = []
        for task, rows in task_docs.items():
            write_rows(folder / f"{task}.jsonl", rows)
            data = {"data_files": {"test": str(folder / f"{task}.jsonl")}, "cache_dir": str(folder / "cache")}
            tasks.append(load_yaml(TASKS / f"{task}.yaml") | {"dataset_kwargs": data})
        return require_complete(run_held_out(lm, TaskManager(include_defaults=False).load(tasks)))["samples"]
