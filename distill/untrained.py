"""The student before training: cut from the teacher with the vocabulary that its rows need, or one that exists."""

from typing import Any

import torch

from distill import models, student, targets, vocabulary
from distill.chat import encode, response_ids
from distill.params import LocalTeacher, PretrainedStudent, TeacherStudent
from distill.teaching import Rows, Stored

Untrained = tuple[Any, Any, dict[str, Any]]  # the network, its tokenizer, and what there is to report of them


def pretrained(choice: PretrainedStudent) -> Untrained:
    """A student that exists."""
    network, tokenizer = models.load(choice.model, torch.float32, choice.revision)
    return network, tokenizer, {"source": choice.model}


def cut_from(
    spec: LocalTeacher,
    choice: TeacherStudent,
    rows: Rows,
    validation: Rows,
    stored: Stored | None,
    expected: torch.Tensor | None,
) -> Untrained:
    """A student of the teacher's layers, and of its vocabulary what `token_counts` finds most often in the rows."""
    teacher, whole = models.load(spec.model, torch.float32, spec.revision, spec.sha256)
    kept = vocabulary.choose(whole, token_counts(rows, whole, stored, expected), choice.vocabulary)
    tokenizer = vocabulary.trim(whole, kept)
    calibration = [encode(whole, row) for row in rows[:: max(len(rows) // choice.calibration_rows, 1)]]
    parts = student.choose(teacher, choice, calibration[: choice.calibration_rows])
    network = student.cut(teacher, parts, kept).to(models.device())
    unseen = [response_ids(whole, row["response"], row["finish_reason"] == "stop") for row in validation]
    report = {
        "source": spec.name,
        "layers": parts.layers,
        "neurons": choice.neurons,
        "kv_heads": choice.kv_heads,
        "vocabulary": len(tokenizer),
        "validation_coverage": round(vocabulary.coverage(unseen, kept), 5),
    }
    return network, tokenizer, report


def token_counts(rows: Rows, tokenizer: Any, stored: Stored | None, expected: torch.Tensor | None) -> dict[int, float]:
    """How often each of the teacher's tokens occurs in prompts and responses, and was expected by the teacher.

    The stored probabilities add what the teacher might have written as well: on unseen topics they find more
    of its words than the text alone. Whole distributions come as their sum, `expected`.
    """
    counts = torch.zeros(len(tokenizer))
    for row in rows:
        example = encode(tokenizer, row)
        ids = torch.tensor([*example.prompt, *example.response])
        counts += torch.bincount(ids, minlength=len(counts))
    for _, part in stored or ():
        if isinstance(part, targets.Rows):
            counts.scatter_add_(0, part.ids.flatten().long(), part.log_probs.flatten().float().exp())
    if expected is not None:
        counts += expected
    return {token: count for token, count in enumerate(counts.tolist()) if count > 0}
