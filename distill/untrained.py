"""The student before training: cut from the teacher with the vocabulary that its rows need, or one that exists."""

from collections.abc import Sequence
from typing import Any

import torch

from distill import adapters, alignment, models, student, targets, vocabulary
from distill.chat import Example, encode, response_ids
from distill.errors import UserError
from distill.params import LocalTeacher, PretrainedStudent, TeacherStudent
from distill.teaching import Rows, Stored

Untrained = tuple[Any, Any, dict[str, Any]]  # the network, its tokenizer, and what there is to report of them


def pretrained(choice: PretrainedStudent) -> Untrained:
    """A student that exists. Raises UserError where it cannot have the adapter that it shall be trained by."""
    network, tokenizer = models.load(choice.model, torch.float32, choice.revision)
    if choice.adapter is not None:
        adapters.require(network, choice.adapter)
    return network, tokenizer, {"source": choice.model}


def cut_from(
    spec: LocalTeacher,
    choice: TeacherStudent,
    rows: Rows,
    validation: Rows,
    theirs: Any,
    stored: Stored | None,
    expected: torch.Tensor | None,
    rung: str | None,
) -> Untrained:
    """A student of the teacher's layers, and of its vocabulary what `token_counts` finds most often in the rows.

    `theirs` is the tokenizer of the teacher whose targets are `stored` or `expected`, None where there are none. As a
    `rung` of a ladder, which has a name, it must be smaller than the teacher (UserError).
    """
    teacher, whole = models.load(spec.model, torch.float32, spec.revision, spec.sha256)
    mates = None if theirs is None else mates_of(theirs, whole)
    kept = vocabulary.choose(whole, token_counts(rows, whole, stored, expected, mates), choice.vocabulary)
    tokenizer = vocabulary.trim(whole, kept)
    parts = student.choose(teacher, choice, calibration(whole, choice, rows), _section(rung))
    network = student.cut(teacher, parts, kept).to(models.device())
    if rung is not None:
        _require_smaller(network, teacher, rung)
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


def cut_further(above: Any, tokenizer: Any, choice: TeacherStudent, rows: Rows, rung: str) -> tuple[Any, list[int]]:
    """A smaller student of one that is there, with all of its vocabulary, and the layers of it that it keeps.

    Raises UserError where it is not smaller.
    """
    parts = student.choose(above, choice, calibration(tokenizer, choice, rows), _section(rung))
    network = student.cut(above, parts, range(above.config.vocab_size)).to(models.device())
    _require_smaller(network, above, rung)
    return network, parts.layers


def cut_down(
    network: Any, tokenizer: Any, choices: Sequence[TeacherStudent], rows: Rows, report: dict[str, Any]
) -> tuple[Any, dict[str, Any]]:
    """The last student of a ladder with nothing trained on the way, and what there is to report of it."""
    for place, choice in enumerate(choices, start=2):
        name = f"rung-{place}" if place <= len(choices) else "student"
        network, kept = cut_further(network, tokenizer, choice, rows, name)
        report = report | {"layers": [report["layers"][index] for index in kept]}
    return network, report


def calibration(tokenizer: Any, choice: TeacherStudent, rows: Rows) -> list[Example]:
    """The rows that the importance of layers, neurons and heads is measured on, evenly spaced."""
    spaced = rows[:: max(len(rows) // choice.calibration_rows, 1)]
    return [encode(tokenizer, row) for row in spaced[: choice.calibration_rows]]


def _section(rung: str | None) -> str:
    """Where params.yaml says what is kept."""
    return "train.student" if rung is None or not rung.startswith("rung") else f"train.ladder, {rung}"


def _require_smaller(network: Any, above: Any, rung: str) -> None:
    own, other = models.parameter_count(network), models.parameter_count(above)
    if own >= other:
        raise UserError(
            f"train.ladder: {rung} has {own:,} parameters and what it is cut from {other:,}; each must be smaller. "
            "Give it fewer layers, neurons or kv_heads than the one above, or leave it out."
        )


def mates_of(theirs: Any, own: Any) -> torch.Tensor | None:
    """For each id of another teacher's tokenizer the id in `own` that spells the same, or -1; None for the same ids."""
    if vocabulary.fingerprint(theirs) == vocabulary.fingerprint(own):
        return None
    return alignment.shared(alignment.spelling(theirs), alignment.spelling(own), first=False)


def token_counts(
    rows: Rows,
    tokenizer: Any,
    stored: Stored | None,
    expected: torch.Tensor | None,
    mates: torch.Tensor | None,
) -> dict[int, float]:
    """How often each of the teacher's tokens occurs in prompts and responses, and was expected by the targets' teacher.

    `mates` are `mates_of` that teacher's tokenizer; what it expects and only it can spell as one token does not count.
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
            _add(counts, part.ids.flatten().long(), part.log_probs.flatten().float().exp(), mates)
    if expected is not None:
        _add(counts, torch.arange(len(expected)), expected, mates)
    return {token: count for token, count in enumerate(counts.tolist()) if count > 0}


def _add(counts: torch.Tensor, ids: torch.Tensor, numbers: torch.Tensor, mates: torch.Tensor | None) -> None:
    """Adds the numbers of these ids [n] to the counts [vocab], by their mates where there are some."""
    if mates is not None:
        ids = mates[ids]
        ids, numbers = ids[ids >= 0], numbers[ids >= 0]
    counts.scatter_add_(0, ids, numbers)
