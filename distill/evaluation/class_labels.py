"""Held-out rows with labels: which label a model picks, how sure it is of it, and how that compares with the teacher's.

Labels are chosen by likelihood and not written, so that a label is the only token of a text and the only word of it:
`nll` is that of the teacher's label within the set, `agreed` whether the model picks the same.
"""

import math
from collections.abc import Sequence
from typing import Any

from distill.core.text import rouge_l
from distill.modeling import class_labels as closed_set

Row = dict[str, Any]


def items(model: Any, tokenizer: Any, rows: Sequence[Row], labels: Sequence[str], batch_tokens: int) -> list[Row]:
    """A row for each item with its scores, as `own_tasks.items` has them, and with the right label and the picked one.

    The right label is the prompt's own, the teacher's where prompts have none. `correct_norm` is of the pick by
    likelihood per character, as lm-eval's `acc_norm`.
    """
    sums, normalised = closed_set.label_log_probs(
        model, tokenizer, [row["messages"] for row in rows], labels, batch_tokens
    )
    result = []
    for row, likelihoods, log_probs in zip(rows, sums, normalised.tolist(), strict=True):
        gold = row.get("label", row["response"])
        picked = labels[log_probs.index(max(log_probs))]
        by_length = [nats / len(label) for nats, label in zip(likelihoods.tolist(), labels, strict=True)]
        result.append({
            "item": row["id"],
            "correct": float(picked == gold),
            "correct_norm": float(labels[by_length.index(max(by_length))] == gold),
            "confidence": math.exp(max(log_probs)),
            "nll": -log_probs[labels.index(row["response"])],
            "tokens": 1,
            "bytes": len(row["response"].encode()),
            "top1_tokens": int(picked == row["response"]),
            "rouge_l": rouge_l(row["response"], picked),
            "ended": 1.0,
            "generated": picked,
            "label": gold,
            "picked": picked,
        })  # fmt: skip
    return result
