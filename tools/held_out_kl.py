"""Forward KL of a student to the teacher on held-out rows, comparable between students."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from distill.core.files import Row
from distill.losses import divergences
from distill.modeling import loading
from distill.modeling.batches import PaddedBatch, length_batches
from distill.modeling.chat import Example, encode
from distill.modeling.forward import per_example, response_logits
from distill.targets import store, tokenizers
from distill.training.dataset import Sample, collate, samples
from distill.training.online_teacher import LiveTeacher

LOSS = divergences.Settings(loss="forward_kl", cross_entropy_share=0.0, temperature=1.0, beta=0.5, tail="bucket")
BATCH_TOKENS = 4096  # padded tokens of one batch
StoredTargets = list[tuple[str, store.Rows]]


@torch.no_grad()
def teacher_targets(teacher: Any, tokenizer: Any, rows: list[Row], k: int) -> StoredTargets:
    """The teacher's top-k tokens at each token of these responses."""
    examples = [encode(tokenizer, row) for row in rows]
    return [
        (examples[index].id, store.top_k(logits, k)) for index, logits in per_example(teacher, examples, BATCH_TOKENS)
    ]


@torch.no_grad()
def divergence(network: Any, items: Sequence[Sample], tokens: int, teacher: LiveTeacher | None = None) -> float:
    """KL(teacher || student) in nats per teacher token, of which there are `tokens`.

    It is measured by the top-k targets of the items, or exactly by a `teacher` that runs on them. If the student splits
    a token into pieces, the later pieces count with their cross-entropy, as in training.
    """
    total = 0.0
    examples = [Example(item.id, item.prompt, item.response) for item in items]
    for batch in length_batches(examples, BATCH_TOKENS):
        part = {name: value.to(network.device) for name, value in collate([items[i] for i in batch]).items()}
        logits = response_logits(network, PaddedBatch.from_tensors(part))
        top: divergences.TopK | divergences.Full
        if teacher is None:
            top = divergences.TopK(part["top_ids"], part["top_log_probs"], part["top_tail"], part["top_known"])
        else:
            batch_of_teacher = PaddedBatch.from_tensors(part, "teacher_")
            top = teacher.of_text(batch_of_teacher, part["teacher_places"], part["teacher_known"])
        total += float(divergences.total(logits, part["labels"], part["weights"], top, LOSS))
    return total / tokens


def stored_divergence(student: Path, teacher_tokenizer: Any, rows: list[Row], stored: StoredTargets) -> float:
    """Divergence of the student in this folder, measured by stored targets."""
    network, _, items = _load_student(student, teacher_tokenizer, rows, stored)
    return divergence(network, items, sum(len(part.tail) for _, part in stored))


def exact_divergence(student: Path, teacher: Any, teacher_tokenizer: Any, rows: list[Row]) -> float:
    """Divergence of the student in this folder from a teacher of its tokenizer family, over the full vocabulary.

    The probability of a token that the student lacks is added to that of the student's first piece of it. Both
    distributions are then over the student's vocabulary.
    """
    network, tokenizer, items = _load_student(student, teacher_tokenizer, rows, None)
    width = network.get_output_embeddings().weight.shape[0]
    live = LiveTeacher(teacher, tokenizers.first_pieces(teacher_tokenizer, tokenizer), width)
    asked = sum(len(item.asked.response) for item in items if item.asked is not None)
    return divergence(network, items, asked, live)


def _load_student(
    student: Path, teacher_tokenizer: Any, rows: list[Row], stored: StoredTargets | None
) -> tuple[Any, Any, list[Sample]]:
    """The student in float32, its tokenizer, and the rows as samples with weight 1."""
    network, tokenizer = loading.load(str(student), torch.float32)
    weighted = [row | {"weight": 1.0} for row in rows]
    longest = network.config.max_position_embeddings
    return network, tokenizer, samples(weighted, tokenizer, longest, teacher_tokenizer, stored)
