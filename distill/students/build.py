"""The student before training: cut from the teacher with the vocabulary that its rows need, or one that exists."""

from collections.abc import Sequence
from typing import Any

import torch

from distill.core.errors import UserError
from distill.core.files import Row
from distill.modeling import loading, runtime
from distill.modeling.chat import Example, encode, response_ids
from distill.params.students import PretrainedStudent, TeacherStudent
from distill.params.teachers import LocalTeacher
from distill.students import lora, pruning, vocabulary
from distill.students.vocabulary import mates_of, token_counts
from distill.targets.store import Stored

Untrained = tuple[Any, Any, dict[str, Any]]  # the network, its tokenizer, and what there is to report of them


def pretrained(choice: PretrainedStudent) -> Untrained:
    """A student that exists. Raises UserError where it cannot have the adapter that it shall be trained by."""
    network, tokenizer = loading.load(choice.model, torch.float32, choice.revision)
    if choice.adapter is not None:
        lora.require(network, choice.adapter)
    return network, tokenizer, {"source": choice.model}


def cut_from(
    spec: LocalTeacher,
    choice: TeacherStudent,
    rows: list[Row],
    validation: list[Row],
    theirs: Any,
    stored: Stored | None,
    expected: torch.Tensor | None,
    rung: str | None,
) -> Untrained:
    """A student of the teacher's layers, and of its vocabulary what `token_counts` finds most often in the rows.

    `theirs` is the tokenizer of the teacher whose targets are `stored` or `expected`, None where there are none. As a
    `rung` of a ladder, which has a name, it must be smaller than the teacher (UserError).
    """
    teacher, whole = loading.load(spec.model, torch.float32, spec.revision, spec.sha256)
    mates = None if theirs is None else mates_of(theirs, whole)
    kept = vocabulary.choose(whole, token_counts(rows, whole, stored, expected, mates), choice.vocabulary)
    tokenizer = vocabulary.trim(whole, kept)
    parts = pruning.choose(teacher, choice, calibration(whole, choice, rows), _section(rung))
    network = pruning.cut(teacher, parts, kept).to(runtime.device())
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


def cut_further(
    above: Any, tokenizer: Any, choice: TeacherStudent, rows: list[Row], rung: str
) -> tuple[Any, list[int]]:
    """A smaller student of one that is there, with all of its vocabulary, and the layers of it that it keeps.

    Raises UserError where it is not smaller.
    """
    parts = pruning.choose(above, choice, calibration(tokenizer, choice, rows), _section(rung))
    network = pruning.cut(above, parts, range(above.config.vocab_size)).to(runtime.device())
    _require_smaller(network, above, rung)
    return network, parts.layers


def cut_down(
    network: Any, tokenizer: Any, choices: Sequence[TeacherStudent], rows: list[Row], report: dict[str, Any]
) -> tuple[Any, dict[str, Any]]:
    """The last student of a ladder with nothing trained on the way, and what there is to report of it."""
    for place, choice in enumerate(choices, start=2):
        name = f"rung-{place}" if place <= len(choices) else "student"
        network, kept = cut_further(network, tokenizer, choice, rows, name)
        report = report | {"layers": [report["layers"][index] for index in kept]}
    return network, report


def calibration(tokenizer: Any, choice: TeacherStudent, rows: list[Row]) -> list[Example]:
    """The rows that the importance of layers, neurons and heads is measured on, evenly spaced."""
    spaced = rows[:: max(len(rows) // choice.calibration_rows, 1)]
    return [encode(tokenizer, row) for row in spaced[: choice.calibration_rows]]


def _section(rung: str | None) -> str:
    """Where params.yaml says what is kept."""
    return "train.student" if rung is None or not rung.startswith("rung") else f"train.ladder, {rung}"


def _require_smaller(network: Any, above: Any, rung: str) -> None:
    own, other = loading.parameter_count(network), loading.parameter_count(above)
    if own >= other:
        raise UserError(
            f"train.ladder: {rung} has {own:,} parameters and what it is cut from {other:,}; each must be smaller. "
            "Give it fewer layers, neurons or kv_heads than the one above, or leave it out."
        )
