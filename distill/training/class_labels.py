"""Training samples of class labels."""

from collections.abc import Sequence
from typing import Any

import torch

from distill.core.errors import UserError
from distill.modeling.chat import prompt_ids
from distill.modeling.class_labels import encoded
from distill.modeling.continuations import Question
from distill.training.dataset import Choice, Sample


def samples(rows: Sequence[dict[str, Any]], tokenizer: Any, labels: Sequence[str], max_length: int) -> list[Sample]:
    """The rows in the student's tokens, each with every label; the beginning of a prompt that is too long goes first.

    Raises UserError for rows that were answered with other labels.
    """
    ids = encoded(tokenizer, labels)
    longest = max(map(len, ids))
    result = []
    for row in rows:
        if row["response"] not in labels or len(row.get("label_log_probs") or ()) != len(labels):
            raise UserError(
                f"the response of row {row['id']!r} must be one of generate.class_labels ({', '.join(labels)}). Run "
                "`dvc repro` to query the teacher with them."
            )
        chosen = labels.index(row["response"])
        prompt = prompt_ids(tokenizer, row["messages"], max_length - longest)
        choice = Choice(ids, chosen, row["label_log_probs"])
        result.append(Sample(row["id"], prompt, ids[chosen], row["weight"], None, choice=choice))
    return result


def collate(batch: Sequence[Sample]) -> dict[str, Any]:
    """A batch: questions, with the labels as continuations; labels [tokens] of all of them; log-probabilities of the
    teacher [rows, labels], its label and the weight of each row."""
    found = [(sample, sample.choice) for sample in batch if sample.choice is not None]
    return {
        "questions": [Question(sample.prompt, choice.labels) for sample, choice in found],
        "labels": torch.tensor([token for sample in batch for token in sample.predicted]),
        "label_log_probs": torch.tensor([choice.log_probs for _, choice in found]),
        "chosen": torch.tensor([choice.chosen for _, choice in found]),
        "weights": torch.tensor([sample.weight for sample in batch]),
    }
