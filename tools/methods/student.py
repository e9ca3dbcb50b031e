"""One student of a method: trained in a clone by the pipeline, and measured there.

Its divergence is KL(teacher || student) on held-out answers, in nats for each of their tokens, exact over the
vocabulary; the teacher is evaluate.teacher for all methods. Where a student lacks a token, its probability counts as
that of the student's first piece of it, and the later pieces of the text count with their cross-entropy.
"""

import os
import subprocess
import sys
import time
from functools import cache
from pathlib import Path
from typing import Any

import torch
import yaml

from distill.core.errors import UserError
from distill.core.files import atomic_file, read_json, read_rows
from distill.core.home import VARIABLE
from distill.evaluation import held_out as own_tasks
from distill.evaluation import multiple_choice
from distill.evaluation.lm_eval_model import DistillLM
from distill.modeling import loading, runtime
from distill.params import loading as params_file
from distill.params.schema import Params
from distill.students.runs import Run
from distill.targets import store
from distill.targets.tokenizers import same_family
from distill.training.data import teacher_of
from tools.held_out_kl import exact
from tools.methods.plan import Method, Row

TARGETS = Path("data/weighted/targets")
GENERATED_AT_ONCE = 128
KL_TEXTS = 100  # held-out answers that the divergence is measured on, at most


def dvc(folder: Path, *arguments: str) -> float:
    """Runs DVC in the clone; returns the seconds. Raises UserError where it fails."""
    mine = os.environ | {
        VARIABLE: str(folder / ".distill"),
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}",
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    started = time.monotonic()
    done = subprocess.run([sys.executable, "-m", "dvc", *arguments], cwd=folder, env=mine, check=False)
    if done.returncode:
        raise UserError(f"`dvc {' '.join(arguments)}` failed in {folder}; its message is above.")
    return time.monotonic() - started


@cache
def teacher_in_full(model: str, revision: str | None, sha256: str | None) -> tuple[Any, Any]:
    """A teacher in fp32 and its tokenizer, loaded once."""
    return loading.load(model, torch.float32, revision, sha256)


def measured(held_out: list[Row], params: Params, model: tuple[Any, Any], teacher_tokenizer: Any) -> list[Row]:
    """One model's scores on the held-out answers of evaluate.teacher, as stage evaluate has them."""
    evaluate, seed = params.evaluate, params.seed
    rows = multiple_choice.subset(held_out, evaluate.max_samples, seed)
    written = {row["id"] for row in multiple_choice.subset(rows, evaluate.max_generations, seed)}
    network, tokenizer = model
    picked = multiple_choice.choices(rows, held_out, seed)
    docs = own_tasks.documents(rows, held_out, picked, tokenizer, teacher_tokenizer)
    lm = DistillLM(network, tokenizer, evaluate.batch_tokens, GENERATED_AT_ONCE, evaluate.max_new_tokens)
    references = {row["id"]: row["response"] for row in rows}
    return own_tasks.compared(own_tasks.items(lm, docs, written), references, teacher_tokenizer)


def held_out_kl(held_out: list[Row], student: Path, teacher: Any, teacher_tokenizer: Any, seed: int) -> float | None:
    """The divergence of the student in this folder.

    None for a student of another tokenizer family, whose distributions are over other outcomes.
    """
    if not same_family(teacher_tokenizer, loading.load_tokenizer(str(student))):
        return None
    return exact(student, teacher, teacher_tokenizer, multiple_choice.subset(held_out, KL_TEXTS, seed))


def bytes_a_token(stored: Path, method: Method) -> float | None:
    """Bytes of the targets in this folder, of layers too, for each response token of their teacher.

    0 where the teacher is asked in each step, None for a student that learns from texts alone.
    """
    settings = method.params.train.distilled
    if method.variant != "distilled" or not (settings.needs_teacher or settings.layer_loss):
        return None
    size = sum(
        (path.parent / shard["file"]).stat().st_size
        for path in stored.rglob(store.MANIFEST)
        for shard in read_json(path, "stage weight")["shards"]
    )
    lengths = [length for _, _, length in read_json(stored / store.MANIFEST, "stage weight")["samples"].values()]
    return size / sum(lengths) if lengths else 0.0


def trained(folder: Path, method: Method, ready: set[str], seed: int) -> Row:
    """Trains a method's student with this seed in the clone and measures it; `ready` has whose data are there."""
    with atomic_file(folder / params_file.PATH) as path:
        path.write_text(yaml.safe_dump(method.raw, sort_keys=False, allow_unicode=True), encoding="utf-8")
    this = Run(method.variant, seed)
    if method.name not in ready:
        dvc(folder, "repro", "weight", "init")
        ready.add(method.name)
    seconds = dvc(folder, "repro", "--force", "--single-item", this.stage)
    params, place = method.params, folder / this.folder
    spec = teacher_of(params.teachers, params.evaluate.teacher)
    teacher, tokenizer = teacher_in_full(spec.model, spec.revision, spec.sha256)
    rows = read_rows(folder / "data/clean/test.jsonl", "stage clean")
    held_out = [row for row in rows if row["teacher"] == spec.name]  # the same for a mixture of teachers
    student = loading.load(str(place), runtime.compute_dtype(params.runtime.dtype))
    tokens = read_json(folder / this.record, f"stage {this.stage}")["response_tokens"]
    return {
        "items": measured(held_out, params, student, tokenizer),
        "minutes": seconds / 60,
        "response_tokens": tokens,
        "held_out_kl": held_out_kl(held_out, place, teacher, tokenizer, params.seed),
        "bytes_a_token": bytes_a_token(folder / TARGETS, method),
    }
