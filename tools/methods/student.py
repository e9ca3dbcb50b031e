"""One student of a method, trained by the pipeline in a clone and measured there.

The divergence is KL(teacher || student) on held-out responses, in nats per token, exact over the vocabulary. The
teacher is evaluate.teacher for all methods. For a token that the student lacks, the student's first piece of it counts;
the later pieces count with their cross-entropy.
"""

import os
import subprocess
import sys
import time
from functools import cache
from pathlib import Path

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from distill.core.errors import UserError
from distill.core.files import Row, atomic_file, read_json, read_rows
from distill.core.home import VARIABLE
from distill.evaluation import multiple_choice
from distill.evaluation.held_out import sample_held_out
from distill.evaluation.measure import held_out_task, measure_items
from distill.modeling import loading, runtime
from distill.params.loading import PATH
from distill.params.schema import Params
from distill.params.teachers import LocalTeacher
from distill.params.yaml_text import format_yaml
from distill.students.runs import Run
from distill.targets import store
from distill.targets.tokenizers import same_family
from tools.held_out_kl import exact_divergence
from tools.methods.plan import Method

TARGETS = Path("data/targets")
MAX_KL_RESPONSES = 100  # held-out responses for the divergence


def dvc(folder: Path, *arguments: str) -> float:
    """Runs DVC in the clone and returns the seconds. Raises UserError if it fails."""
    environment = os.environ | {
        VARIABLE: str(folder / ".distill"),
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}",
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    started = time.monotonic()
    done = subprocess.run([sys.executable, "-m", "dvc", *arguments], cwd=folder, env=environment, check=False)
    if done.returncode:
        raise UserError(f"`dvc {' '.join(arguments)}` failed in {folder}; its message is above.")
    return time.monotonic() - started


@cache
def load_teacher(teacher: LocalTeacher) -> tuple[PreTrainedModel, PreTrainedTokenizerFast]:
    """A teacher in float32 and its tokenizer, loaded once."""
    return loading.load_teacher(teacher, torch.float32)


def item_scores(
    rows: list[Row],
    params: Params,
    model: tuple[PreTrainedModel, PreTrainedTokenizerFast],
    teacher_tokenizer: PreTrainedTokenizerFast,
) -> list[Row]:
    """One model's scores on held-out rows of evaluate.teacher, the same as in stage evaluate."""
    evaluate, seed = params.evaluate, params.data_seed
    held_out = sample_held_out(rows, evaluate.max_samples, evaluate.max_generations, seed)
    task = held_out_task(held_out, params.generate.class_labels, teacher_tokenizer, evaluate, seed)
    return measure_items(*model, task, teacher_tokenizer)


def held_out_kl(
    rows: list[Row], student: Path, teacher: PreTrainedModel, teacher_tokenizer: PreTrainedTokenizerFast, seed: int
) -> float | None:
    """The divergence of the student in this folder.

    None for a student of another tokenizer family, whose distributions have other outcomes.
    """
    if not same_family(teacher_tokenizer, loading.load_tokenizer(str(student))):
        return None
    return exact_divergence(student, teacher, teacher_tokenizer, multiple_choice.subset(rows, MAX_KL_RESPONSES, seed))


def bytes_a_token(stored: Path, method: Method) -> float | None:
    """Bytes of the targets in this folder, hidden states included, for each response token of their teacher.

    0 if the teacher runs in each step, None for a student that learns from texts alone.
    """
    losses = method.params.train.distilled
    if method.variant != "distilled" or not (losses.loss.needs_teacher or losses.hidden_loss):
        return None
    size = sum(
        (path.parent / shard["file"]).stat().st_size
        for path in stored.rglob(store.MANIFEST)
        for shard in read_json(path, store.WRITER)["shards"]
    )
    lengths = [length for _, _, length in read_json(stored / store.MANIFEST, store.WRITER)["samples"].values()]
    return size / sum(lengths) if lengths else 0.0


def train_and_measure(folder: Path, method: Method, prepared: set[str], seed: int) -> Row:
    """Trains a method's student with this seed in the clone and measures it.

    `prepared` has the methods whose data are in the clone; this one is added.
    """
    with atomic_file(folder / PATH) as path:
        path.write_text(format_yaml(method.raw), encoding="utf-8")
    run = Run(method.variant, seed)
    if method.name not in prepared:
        dvc(folder, "repro", "weight", "init")
        prepared.add(method.name)
    seconds = dvc(folder, "repro", "--force", "--single-item", run.stage)
    params, student_folder = method.params, folder / run.folder
    spec = params.local_teacher(params.evaluate.teacher)
    teacher, tokenizer = load_teacher(spec)
    rows = read_rows(folder / "data/clean/test.jsonl", "stage clean")
    held_out_rows = [row for row in rows if row["teacher"] == spec.name]  # the same for a mixture of teachers
    student = loading.load_model(str(student_folder), runtime.compute_dtype(params.runtime.dtype))
    tokens = read_json(folder / run.record, f"stage {run.stage}")["response_tokens"]
    return {
        "items": item_scores(held_out_rows, params, student, tokenizer),
        "minutes": seconds / 60,
        "response_tokens": tokens,
        "held_out_kl": held_out_kl(held_out_rows, student_folder, teacher, tokenizer, params.data_seed),
        "bytes_a_token": bytes_a_token(folder / TARGETS, method),
    }
