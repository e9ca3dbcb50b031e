"""Training on class labels: samples, batches and the loss of a batch."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from distill.core.errors import UserError
from distill.core.files import Row
from distill.losses.chunked import label_log_probs
from distill.losses.class_labels import class_label_loss, sequence_log_probs
from distill.losses.logit_loss import LossSettings
from distill.modeling.chat import prompt_ids
from distill.modeling.class_labels import encode_labels
from distill.modeling.continuations import Candidates, continuation_logits
from distill.training.dataset import ClassTargets, Sample


def encode_class_samples(
    rows: Sequence[Row], tokenizer: PreTrainedTokenizerFast, labels: Sequence[str], max_length: int
) -> list[Sample]:
    """The rows in the student's tokens, each with every label; the beginning of a prompt that is too long is cut off.

    Raises UserError for rows whose response is one of other labels.
    """
    ids = encode_labels(tokenizer, labels)
    longest = max(map(len, ids))
    result = []
    for row in rows:
        if row["response"] not in labels or len(row.get("label_log_probs") or ()) != len(labels):
            raise UserError(
                f"row {row['id']!r} must have one of generate.class_labels ({', '.join(labels)}) as its response. Run "
                "`dvc repro` to query the teacher with them."
            )
        label = labels.index(row["response"])
        prompt = prompt_ids(tokenizer, row["messages"], max_length - longest)
        targets = ClassTargets(ids, label, row["label_log_probs"])
        result.append(Sample(row["id"], prompt, ids[label], row["weight"], targets))
    return result


def collate_class_labels(batch: Sequence[Sample]) -> dict[str, Any]:
    """A batch: questions, with the labels as continuations; labels [tokens] of all of them; class_log_probs of the
    teacher [rows, labels], its label and the weight of each row."""
    pairs = [(sample, sample.targets) for sample in batch if isinstance(sample.targets, ClassTargets)]
    return {
        "candidates": [Candidates(sample.prompt, targets.labels) for sample, targets in pairs],
        "labels": torch.tensor([token for sample in batch for token in sample.predicted]),
        "class_log_probs": torch.tensor([targets.log_probs for _, targets in pairs]),
        "class_labels": torch.tensor([targets.label for _, targets in pairs]),
        "weights": torch.tensor([sample.weight for sample in batch]),
    }


def batch_loss(model: PreTrainedModel, inputs: Mapping[str, Any], settings: LossSettings) -> torch.Tensor:
    """The sum over rows of weight x loss, a scalar. A prompt goes through the model once for all labels."""
    logits = continuation_logits(model, inputs["candidates"])
    log_probs = label_log_probs(logits, inputs["labels"])
    student = sequence_log_probs(log_probs, [len(label) for label in inputs["candidates"][0].continuations])
    return class_label_loss(student, inputs["class_log_probs"], inputs["class_labels"], inputs["weights"], settings)
