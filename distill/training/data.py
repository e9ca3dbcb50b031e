"""Training data: samples with the teacher's targets, and the online teacher where targets are not stored."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from distill.core.errors import UserError
from distill.core.files import Row
from distill.losses.hidden_states import HiddenStateLoss, prepare_hidden_loss
from distill.modeling import loading
from distill.modeling.chat import encode, end_of_turn, prompt_ids
from distill.modeling.class_labels import encode_labels
from distill.modeling.sampling import Sampling
from distill.params.targets import OnPolicyTargets, Targets
from distill.params.train import CrossEntropyLoss, Distilled
from distill.students.build import StoredTargets
from distill.targets import store
from distill.targets.stored import StoredStates
from distill.targets.tokenizers import to_student_ids, to_teacher_ids
from distill.training.class_labels import encode_class_samples
from distill.training.dataset import Sample, TeacherTargets, encode_samples
from distill.training.on_policy import OnPolicy
from distill.training.online_teacher import OnlineTeacher

SFT = Distilled(loss=CrossEntropyLoss(kind="cross_entropy"), hidden_loss=None)


@dataclass(frozen=True)
class TrainingData:
    """The samples, and in addition an online teacher, on-policy responses and a hidden-state loss where there are."""

    samples: list[Sample]
    teacher: OnlineTeacher | None = None
    on_policy: OnPolicy | None = None
    hidden_loss: HiddenStateLoss | None = None


@dataclass(frozen=True)
class TrainingContext:
    """What all phases of a run learn from: rows, the student's tokenizer, class labels or targets, and the losses."""

    rows: Sequence[Row]
    tokenizer: PreTrainedTokenizerFast
    max_length: int
    dtype: torch.dtype
    class_labels: Sequence[str] | None
    targets: StoredTargets | None
    losses: Distilled


def require_short_rows(context: TrainingContext) -> None:
    """Prints how many rows `max_length` cuts, if any. Raises UserError where these are most rows."""
    lengths, limit = _row_lengths(context), context.max_length
    longer = [prompt + response for prompt, response in lengths if prompt + response > limit]
    if not longer:
        return
    prompts = sum(prompt + min(response, limit - 1) > limit for prompt, response in lengths)
    responses = sum(response > limit - 1 for _, response in lengths)
    text = (
        f"train.optimization.max_length: {len(longer)} of {len(lengths)} rows have more than {limit} tokens, at most "
        f"{max(longer)}: {prompts} are learnt without the beginning of their prompt, {responses} without the end of "
        "their response."
    )
    if 2 * len(longer) > len(lengths):
        raise UserError(f"{text} These are most rows. Raise max_length, or give shorter prompts and responses.")
    print(text)


def _row_lengths(context: TrainingContext) -> list[tuple[int, int]]:
    """The student's tokens of each row's prompt, and of its response or the longest class label."""
    rows, tokenizer = context.rows, context.tokenizer
    if context.class_labels is None:
        return [(len(example.prompt), len(example.response)) for example in (encode(tokenizer, row) for row in rows)]
    longest = max(map(len, encode_labels(tokenizer, context.class_labels)))
    return [(len(prompt_ids(tokenizer, row["messages"])), longest) for row in rows]


def load_training_data(
    context: TrainingContext, student: PreTrainedModel, teacher: Path | None, is_final: bool, seed: int
) -> TrainingData:
    """The data of a phase that trains the `student`.

    `teacher` is the folder of a student that teaches, None for the original teacher. Layers of intermediate students
    (not `is_final`) are numbered otherwise and learn no hidden states. The student gets the projections of a
    hidden-state loss.
    """
    if context.class_labels is not None:
        rows, tokenizer = context.rows, context.tokenizer
        return TrainingData(encode_class_samples(rows, tokenizer, context.class_labels, context.max_length))
    hidden_loss = context.losses.hidden_loss if is_final else None
    targets = context.targets
    if targets is None or not (context.losses.loss.needs_teacher or hidden_loss):
        return TrainingData(encode_samples(context.rows, context.tokenizer, context.max_length))
    if teacher is not None:
        return self_distillation_data(context, student, teacher, targets.targets, seed)
    return _teacher_data(context, targets, student, with_layers=hidden_loss is not None, seed=seed)


def self_distillation_data(
    context: TrainingContext, student: PreTrainedModel, teacher: Path, targets: Targets, seed: int
) -> TrainingData:
    """The rows for a student that learns from another one in a folder, of the same vocabulary, online."""
    model, _ = loading.load_model(str(teacher), context.dtype)
    tokenizer = context.tokenizer
    samples = encode_samples(context.rows, tokenizer, context.max_length, TeacherTargets(tokenizer, None, {}))
    online = online_teacher(model, tokenizer, student, tokenizer)
    return TrainingData(samples, online, on_policy(targets, tokenizer, tokenizer, seed))


def _teacher_data(
    context: TrainingContext, stored: StoredTargets, student: PreTrainedModel, with_layers: bool, seed: int
) -> TrainingData:
    teacher, targets = stored.teacher, stored.targets
    tokenizer = loading.load_teacher_tokenizer(teacher)
    source = stored.source(tokenizer, context.rows)
    rows = dict(store.read_targets(stored.folder, source))
    layers: dict[str, StoredStates] = {}
    hidden_loss = None
    if with_layers:
        assert context.losses.hidden_loss is not None
        assert targets.layers is not None
        states = store.read_targets(stored.folder / store.LAYERS, store.describe_layers(source, targets.layers))
        layers = {name: stored_states for name, stored_states in states if isinstance(stored_states, StoredStates)}
        width = next(iter(layers.values())).states.shape[-1]
        hidden_loss = prepare_hidden_loss(student, context.losses.hidden_loss, targets.layers, width)
    teacher_targets = TeacherTargets(tokenizer, rows if targets.stored else None, layers)
    samples = encode_samples(context.rows, context.tokenizer, context.max_length, teacher_targets)
    if not targets.full:
        return TrainingData(samples, hidden_loss=hidden_loss)
    model, _ = loading.load_teacher(teacher, context.dtype)
    online = online_teacher(model, tokenizer, student, context.tokenizer)
    return TrainingData(samples, online, on_policy(targets, tokenizer, context.tokenizer, seed), hidden_loss)


def online_teacher(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerFast,
    student: PreTrainedModel,
    student_tokenizer: PreTrainedTokenizerFast,
) -> OnlineTeacher:
    """The teacher `model` for a student of its tokenizer family."""
    width = student.get_output_embeddings().weight.shape[0]
    return OnlineTeacher(model, to_student_ids(tokenizer, student_tokenizer), width)


def on_policy(
    targets: Targets, teacher: PreTrainedTokenizerFast, student: PreTrainedTokenizerFast, seed: int
) -> OnPolicy | None:
    """How the student writes responses with on-policy targets, else None."""
    if not isinstance(targets, OnPolicyTargets):
        return None
    sampling = Sampling(targets.max_new_tokens, targets.sampling_temperature, 1.0, seed)
    return OnPolicy(targets.on_policy_fraction, sampling, end_of_turn(student), to_teacher_ids(teacher, student))
