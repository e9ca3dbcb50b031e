"""What a training learns from: its rows as samples, and what the teacher stored of them or the teacher itself.

The teacher's distributions are read as they were stored (distill/targets/store.py), or the teacher is asked in each
step (distill/training/online_teacher.py); for a student of another tokenizer family they are carried over by spans of
equal text (distill/losses/cross_tokenizer.py).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from distill.losses import hidden_states
from distill.losses.hidden_states import LayerLoss
from distill.modeling import loading
from distill.modeling.chat import end_of_turn
from distill.modeling.sampling import Sampling
from distill.params.teachers import LocalTeacher, Teacher
from distill.params.train import LayerLoss as Settings
from distill.params.weight import Targets
from distill.targets import store, tokenizers
from distill.training.dataset import Sample, samples
from distill.training.on_policy import Answering
from distill.training.online_teacher import LiveTeacher

Rows = list[dict[str, Any]]


@dataclass(frozen=True)
class Lessons:
    """The samples, the teacher where it is asked in each step, how the student answers, how its layers learn."""

    samples: list[Sample]
    teacher: LiveTeacher | None = None
    answering: Answering | None = None
    layer_loss: LayerLoss | None = None


def teacher_of(teachers: Sequence[Teacher], name: str) -> LocalTeacher:
    """The local teacher of this name; the schema has checked that there is one."""
    return next(teacher for teacher in teachers if teacher.name == name and teacher.kind == "local")


def stored_targets(folder: Path, teacher: LocalTeacher, wanted: Targets, rows: Rows, dtype: torch.dtype) -> Any:
    """The teacher's tokenizer and its targets in `folder`, which are None where it is asked during training."""
    tokenizer = loading.load_tokenizer(teacher.model, teacher.revision, teacher.sha256, teacher.chat_template)
    name = str(dtype).removeprefix("torch.")
    stored = list(store.read(folder, store.source(teacher, tokenizer, rows, name, wanted)))
    return tokenizer, None if wanted.kind in ("online", "on_policy") else stored


def lessons(
    rows: Rows,
    network: Any,
    tokenizer: Any,
    max_length: int,
    teacher: LocalTeacher,
    wanted: Targets,
    folder: Path,
    dtype: torch.dtype,
    seed: int,
    layer_loss: Settings | None = None,
    layers: Sequence[int] = (),
) -> Lessons:
    """The rows for a student, `network` with its `tokenizer`, that learns from the teacher's targets in `folder`.

    By a `layer_loss` its layers learn from the states of the teacher's `layers` there; the network gets what it needs
    for it.
    """
    whole, stored = stored_targets(folder, teacher, wanted, rows, dtype)
    if layer_loss is None:
        data, learning = samples(rows, tokenizer, max_length, whole, stored), None
    else:
        source = store.source(teacher, whole, rows, str(dtype).removeprefix("torch."), wanted)
        found = store.read(folder / store.LAYERS, store.layers_source(source, layers))
        states = [(sample, part) for sample, part in found if isinstance(part, store.States)]
        data = samples(rows, tokenizer, max_length, whole, stored, states)
        learning = hidden_states.prepare(network, layer_loss, layers, states[0][1].states.shape[-1])
    if wanted.kind in ("stored", "sampled"):
        return Lessons(data, layer_loss=learning)
    model, _ = loading.load(teacher.model, dtype, teacher.revision, teacher.sha256)
    return Lessons(data, *_beside(network, tokenizer, model, whole, wanted, seed), layer_loss=learning)


def of_a_student(
    rows: Rows,
    network: Any,
    tokenizer: Any,
    max_length: int,
    folder: Path,
    wanted: Targets,
    dtype: torch.dtype,
    seed: int,
) -> Lessons:
    """The rows for a student that learns from another one in `folder`, which has its vocabulary, asked in each step."""
    model, _ = loading.load(str(folder), dtype)
    data = samples(rows, tokenizer, max_length, tokenizer, None)
    return Lessons(data, *_beside(network, tokenizer, model, tokenizer, wanted, seed))


def _beside(
    network: Any, tokenizer: Any, model: Any, whole: Any, wanted: Targets, seed: int
) -> tuple[LiveTeacher, Answering | None]:
    """The teacher `model`, of tokenizer `whole`, beside the student, and how the student answers where it shall."""
    width = network.get_output_embeddings().weight.shape[0]
    live = LiveTeacher(model, tokenizers.first_pieces(whole, tokenizer), width)
    if wanted.kind != "on_policy":
        return live, None
    sampling = Sampling(wanted.max_tokens, wanted.sampling_temperature, 1.0, seed)
    theirs = tokenizers.teacher_ids(whole, tokenizer)
    return live, Answering(wanted.student_fraction, sampling, end_of_turn(tokenizer), theirs)
