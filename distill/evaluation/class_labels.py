"""Class labels on held-out rows: the label that a model picks by likelihood, and its probability.

A model picks a label and generates no text, so a label counts as one token and one word. `nll` is that of the
teacher's label within the set, and `top1_tokens` is 1 where the model picks the teacher's label.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import pandas as pd
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from distill.core.files import Row, value_hash
from distill.core.text import rouge_l
from distill.evaluation.classification import estimate_classification
from distill.evaluation.held_out import HeldOut
from distill.evaluation.metrics import chance_accuracy
from distill.modeling.class_labels import label_log_probs


@dataclass(frozen=True)
class ClassLabelTask:
    """A HeldOutTask of a closed set of labels."""

    held_out: HeldOut
    class_labels: Sequence[str]
    batch_tokens: int

    unit = "class labels"

    @property
    def chance(self) -> float:
        """See HeldOutTask."""
        return chance_accuracy(self.class_labels)

    def prepare(
        self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast
    ) -> tuple[Row, Callable[[], list[Row]]]:
        """See HeldOutTask."""
        rows, labels = self.held_out.rows, self.class_labels
        key = {"rows": value_hash(rows), "labels": list(labels)}
        return key, partial(class_label_items, model, tokenizer, rows, labels, self.batch_tokens)

    def report(self, items: dict[str, list[pd.DataFrame]], resamples: int, seed: int) -> Row:
        """See HeldOutTask."""
        scores = {model: estimate_classification(seeds, resamples, seed) for model, seeds in items.items()}
        return {"classification": scores}


def class_label_items(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerFast,
    rows: Sequence[Row],
    labels: Sequence[str],
    batch_tokens: int,
) -> list[Row]:
    """A row of scores for each held-out row, as `text_items` has them, with the right label and the picked one.

    The right label is the prompt's own; the teacher's where prompts have none. `correct_norm` is of the pick by
    likelihood per character, as lm-eval's `acc_norm`.
    """
    prompts = [row["messages"] for row in rows]
    likelihoods, normalised = label_log_probs(model, tokenizer, prompts, labels, batch_tokens)
    items = []
    for row, label_nats, log_probs in zip(rows, likelihoods.tolist(), normalised.tolist(), strict=True):
        right = row.get("label", row["response"])
        picked = labels[log_probs.index(max(log_probs))]
        by_length = [nats / len(label) for nats, label in zip(label_nats, labels, strict=True)]
        items.append({
            "item": row["id"],
            "correct": float(picked == right),
            "correct_norm": float(labels[by_length.index(max(by_length))] == right),
            "confidence": math.exp(max(log_probs)),
            "nll": -log_probs[labels.index(row["response"])],
            "tokens": 1,
            "bytes": len(row["response"].encode()),
            "top1_tokens": int(picked == row["response"]),
            "rouge_l": rouge_l(row["response"], picked),
            "ended": 1.0,
            "generated": picked,
            "label": right,
            "picked": picked,
        })  # fmt: skip
    return items
