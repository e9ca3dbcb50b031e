"""The loss that a student reached: its forward KL to the teacher on the validation rows, the same for every student."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from distill import losses, models, targets
from distill.batches import by_length, padded
from distill.chat import Example, encode
from distill.dataset import Sample, collate, samples
from distill.logits import response_logits
from tools.bench_train.ours import LOSS

BATCH_TOKENS = 4096  # padded tokens of one batch
Rows = list[dict[str, Any]]
Stored = list[tuple[str, targets.Rows]]


@torch.no_grad()
def teacher_rows(teacher: Any, tokenizer: Any, rows: Rows, k: int) -> Stored:
    """The teacher's k best tokens at each token of these responses."""
    examples = [encode(tokenizer, row) for row in rows]
    result = []
    for batch in by_length(examples, BATCH_TOKENS):
        logits = response_logits(teacher, *padded([(examples[i].prompt, examples[i].response) for i in batch]))
        parts = logits.split([len(examples[i].response) for i in batch])
        result += [(examples[i].id, targets.top_k(part, k)) for i, part in zip(batch, parts, strict=True)]
    return result


@torch.no_grad()
def divergence(network: Any, items: Sequence[Sample], tokens: int) -> float:
    """KL(teacher || student), nats for each of the teacher's `tokens`.

    Of a token that the student cuts finer, the later pieces count with their cross-entropy, as in training.
    """
    total = 0.0
    examples = [Example(item.id, item.prompt, item.response) for item in items]
    for batch in by_length(examples, BATCH_TOKENS):
        part = {name: value.to(network.device) for name, value in collate([items[i] for i in batch]).items()}
        logits = response_logits(network, part["input_ids"], part["attention_mask"], part["predicts"])
        top = losses.TopK(part["top_ids"], part["top_log_probs"], part["top_tail"], part["top_known"])
        total += float(losses.total(logits, part["labels"], part["weights"], top, LOSS))
    return total / tokens


def reached(student: Path, teacher_tokenizer: Any, rows: Rows, stored: Stored) -> float:
    """The divergence of the student in this folder."""
    network, tokenizer = models.load(str(student), torch.float32)
    weighted = [row | {"weight": 1.0} for row in rows]
    longest = network.config.max_position_embeddings
    items = samples(weighted, tokenizer, longest, teacher_tokenizer, stored)
    return divergence(network, items, sum(len(part.tail) for _, part in stored))
