"""What a student learns of labels: the teacher's distribution over a closed set, by a divergence of distill/losses.py.

The student's own distribution S is the softmax, over the set, of the log-likelihood of each label's whole token
sequence: nothing is asked of what it would write beside the labels. Losses are in nats per row.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch.nn.functional import log_softmax

from distill import losses
from distill.chat import prompt_ids
from distill.continuations import Question, continuation_logits
from distill.dataset import Choice, Sample
from distill.errors import UserError
from distill.labels import encoded


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
                f"row {row['id']!r} was not answered by one of generate.labels ({', '.join(labels)}): run `dvc repro` "
                "to ask the teacher with them."
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


def total(model: Any, inputs: Mapping[str, Any], settings: losses.Settings) -> torch.Tensor:
    """The sum over rows of weight x loss, a scalar, for a batch. Cross-entropy is -log S of the teacher's label.

    A prompt goes through the model once for all labels.
    """
    logits = continuation_logits(model, inputs["questions"])
    log_probs = losses.of_labels(logits, inputs["labels"])
    student = sums(log_probs, [len(label) for label in inputs["questions"][0].continuations])
    return over_set(student, inputs["label_log_probs"], inputs["chosen"], inputs["weights"], settings)


def sums(log_probs: torch.Tensor, lengths: Sequence[int]) -> torch.Tensor:
    """Each label's log-likelihood, [rows, labels], from its tokens', [rows x tokens of all labels]."""
    parts = log_probs.view(-1, sum(lengths)).split(list(lengths), dim=-1)
    return torch.stack([part.sum(-1) for part in parts], dim=-1)


def over_set(
    student: torch.Tensor,
    teacher: torch.Tensor,
    chosen: torch.Tensor,
    weights: torch.Tensor,
    settings: losses.Settings,
) -> torch.Tensor:
    """The sum over rows of weight x loss, from log-likelihoods [rows, labels]; `chosen` [rows] are the teacher's."""
    student, teacher = log_softmax(student, dim=-1), log_softmax(teacher, dim=-1)
    label = student.gather(1, chosen[:, None])[:, 0]
    if settings.loss == "cross_entropy":
        return (weights * -label).sum()
    known = torch.ones_like(chosen, dtype=torch.bool)
    return (weights * losses.per_token(student, teacher, label, known, settings)).sum()
