"""Forward KL of a student to the teacher on held-out rows, comparable between students."""

from collections.abc import Sequence
from pathlib import Path

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from distill.core.files import Row
from distill.losses.logit_loss import LossSettings, logit_loss
from distill.modeling import loading
from distill.modeling.batches import PaddedBatch, length_batches
from distill.modeling.chat import Example, encode
from distill.modeling.forward import per_example, response_logits
from distill.targets.distributions import TopK
from distill.targets.stored import StoredStates, StoredTopK, top_k
from distill.training.data import online_teacher
from distill.training.dataset import Sample, TeacherInputs, TeacherTargets, collate, encode_samples
from distill.training.online_teacher import OnlineTeacher

FORWARD_KL = LossSettings("forward_kl", ce_weight=0.0, tail="bucket")
BATCH_TOKENS = 4096  # padded tokens of one batch
StoredTargets = dict[str, StoredTopK | StoredStates]


@torch.no_grad()
def teacher_targets(
    teacher: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, rows: Sequence[Row], k: int
) -> StoredTargets:
    """The teacher's top-k tokens at each token of these responses."""
    examples = [encode(tokenizer, row) for row in rows]
    return {examples[index].id: top_k(logits, k) for index, logits in per_example(teacher, examples, BATCH_TOKENS)}


@torch.no_grad()
def divergence(
    student: PreTrainedModel, samples: Sequence[Sample], tokens: int, teacher: OnlineTeacher | None = None
) -> float:
    """KL(teacher || student) in nats per teacher token, of which there are `tokens`.

    It is measured by the top-k targets of the samples, or exactly by a `teacher` that runs on them. If the student
    splits a token into pieces, the later pieces count with their cross-entropy, as in training.
    """
    total = 0.0
    examples = [Example(sample.id, sample.prompt, sample.response) for sample in samples]
    for indices in length_batches(examples, BATCH_TOKENS):
        batch = {name: value.to(student.device) for name, value in collate([samples[i] for i in indices]).items()}
        logits = response_logits(student, PaddedBatch.from_tensors(batch))
        targets = batch["targets"]
        if not isinstance(targets, TopK):
            assert teacher is not None, "targets that are not stored need a teacher"
            targets = teacher.distributions(targets)
        total += float(logit_loss(logits, batch["labels"], batch["weights"], targets, FORWARD_KL))
    return total / tokens


def stored_divergence(
    student: Path, teacher_tokenizer: PreTrainedTokenizerFast, rows: Sequence[Row], stored: StoredTargets
) -> float:
    """Divergence of the student in this folder, measured by stored targets."""
    model, _, samples = _load_student(student, rows, TeacherTargets(teacher_tokenizer, stored, {}))
    return divergence(model, samples, sum(map(len, stored.values())))


def exact_divergence(
    student: Path, teacher: PreTrainedModel, teacher_tokenizer: PreTrainedTokenizerFast, rows: Sequence[Row]
) -> float:
    """Divergence of the student in this folder from a teacher of its tokenizer family, over the full vocabulary.

    The probability of a token that the student lacks is added to that of the student's first piece of it. Both
    distributions are then over the student's vocabulary.
    """
    model, tokenizer, samples = _load_student(student, rows, TeacherTargets(teacher_tokenizer, None, {}))
    online = online_teacher(teacher, teacher_tokenizer, model, tokenizer)
    inputs = [sample.targets for sample in samples if isinstance(sample.targets, TeacherInputs)]
    return divergence(model, samples, sum(len(item.response) for item in inputs), online)


def _load_student(
    student: Path, rows: Sequence[Row], teacher: TeacherTargets
) -> tuple[PreTrainedModel, PreTrainedTokenizerFast, list[Sample]]:
    """The student in float32, its tokenizer, and the rows as samples with weight 1."""
    model, tokenizer = loading.load_model(str(student), torch.float32)
    weighted = [row | {"weight": 1.0} for row in rows]
    return model, tokenizer, encode_samples(weighted, tokenizer, model.config.max_position_embeddings, teacher)
