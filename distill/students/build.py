"""Initialize the student: prune the teacher or load a checkpoint."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from distill.core.errors import UserError
from distill.core.files import Row
from distill.modeling import loading, runtime
from distill.modeling.chat import Example, encode, response_ids
from distill.params.init import PretrainedStudent, PrunedStudent
from distill.params.targets import Targets
from distill.params.teachers import LocalTeacher, Teacher
from distill.params.train import Progressive
from distill.students import pruning, vocabulary
from distill.targets import store
from distill.targets.stored import StoredTopK

INTERMEDIATE = "intermediate-"  # with a number: the name of an intermediate student
FINAL = "student"
# of the record of init, what a trained student's record has too
DESCRIBED = ("source", "layers", "intermediate_size", "num_key_value_heads", "vocab_size", "validation_coverage")


@dataclass(frozen=True)
class Student:
    """A model with its tokenizer and what its record says of it: source, layers, sizes, coverage."""

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerFast
    record: Row


@dataclass(frozen=True)
class StoredTargets:
    """The targets in a folder, and the teacher and dtype that they must be of."""

    folder: Path
    teacher: LocalTeacher
    targets: Targets
    dtype: str

    def source(self, tokenizer: PreTrainedTokenizerFast, rows: Sequence[Row]) -> store.Source:
        """What targets of these rows by this teacher, of this tokenizer, are made from."""
        return store.describe_source(self.teacher, tokenizer, rows, self.dtype, self.targets)

    @classmethod
    def find(
        cls, folder: Path, targets: Targets | None, teachers: Sequence[Teacher], dtype: torch.dtype
    ) -> "StoredTargets | None":
        """The targets in a folder and their teacher, None without logit distillation."""
        if targets is None:
            return None
        teacher = next(entry for entry in teachers if entry.name == targets.teacher and entry.kind == "local")
        return cls(folder, teacher, targets, runtime.dtype_name(dtype))


def pruning_plan(final: PrunedStudent, progressive: Progressive | None) -> list[PrunedStudent]:
    """What each student keeps of the one before it, the first of the teacher; the last is the final student.

    Lists of layers, which params give in the teacher's numbering, are in that of the student before.
    """
    sizes = [
        final.model_copy(update=student.model_dump(exclude={"num_train_epochs"}))
        for student in (progressive.students if progressive else [])
    ]
    plan: list[PrunedStudent] = []
    before: list[int] | None = None
    for size in [*sizes, final]:
        layers = size.layers
        if isinstance(layers, list):
            numbered = layers if before is None else [before.index(layer) for layer in layers]
            before, layers = layers, numbered
        plan.append(size.model_copy(update={"layers": layers}))
    return plan


def load_pretrained(section: PretrainedStudent) -> Student:
    """The checkpoint of the section, in float32."""
    model, tokenizer = loading.load_model(section.model, torch.float32, section.revision)
    return Student(model, tokenizer, {"source": section.model})


def load_initial(folder: Path, record: Row, progressive: Progressive | None) -> Student:
    """What stage init wrote and training starts from: the final student, or the first intermediate one.

    `record` is metrics/init.json. Raises UserError where the folder is missing or broken.
    """
    path = folder / f"{INTERMEDIATE}1" if progressive else folder
    if not path.is_dir():
        raise UserError(f"{path} is missing. Run `dvc repro init`: it makes the students that training starts from.")
    model, tokenizer = loading.load_model(str(path), torch.float32)
    described = {name: value for name, value in record.items() if name in DESCRIBED}
    return Student(model, tokenizer, described | ({"layers": record["start_layers"]} if progressive else {}))


def prune_teacher(
    teacher: LocalTeacher,
    sizes: PrunedStudent,
    rows: Sequence[Row],
    validation: Sequence[Row],
    targets: StoredTargets | None,
    name: str = FINAL,
) -> Student:
    """A student of the teacher's layers and of the tokens that are most frequent in the rows and their targets.

    An intermediate student, by its `name`, must be smaller than the teacher (UserError).
    """
    model, tokenizer = loading.load_teacher(teacher, torch.float32)
    expected = () if targets is None else expected_tokens(targets, rows, tokenizer)
    counts = vocabulary.token_counts(rows, tokenizer, expected)
    kept = vocabulary.select_tokens(tokenizer, counts, sizes.vocab_size)
    trimmed = vocabulary.trim_tokenizer(tokenizer, kept)
    parts = pruning.select_parts(model, sizes, calibration(tokenizer, sizes, rows), _section(name))
    student = pruning.prune(model, parts, kept).to(runtime.device())  # type: ignore[arg-type]  # its wrapper is typed wrongly
    if name != FINAL:
        _require_smaller(student, model, name)
    unseen = [response_ids(tokenizer, row["response"], row["finish_reason"] == "stop") for row in validation]
    record = {
        "source": teacher.name,
        "layers": parts.layers,
        "intermediate_size": sizes.intermediate_size,
        "num_key_value_heads": sizes.num_key_value_heads,
        "vocab_size": len(trimmed),
        "validation_coverage": round(vocabulary.coverage(unseen, kept), 5),
    }
    return Student(student, trimmed, record)


def prune_again(student: Student, sizes: PrunedStudent, rows: Sequence[Row], name: str) -> Student:
    """A smaller student with the whole vocabulary of the one before. Raises UserError where it is not smaller."""
    before = student.model
    parts = pruning.select_parts(before, sizes, calibration(student.tokenizer, sizes, rows), _section(name))
    model = pruning.prune(before, parts, range(before.config.vocab_size)).to(runtime.device())  # type: ignore[arg-type]
    _require_smaller(model, before, name)
    layers = [student.record["layers"][layer] for layer in parts.layers]
    return Student(model, student.tokenizer, student.record | {"layers": layers})


def prune_through(first: Student, plan: Sequence[PrunedStudent], rows: Sequence[Row]) -> Student:
    """The final student of a pruning plan whose first student is there, with nothing trained in between."""
    student = first
    for number, sizes in enumerate(plan[1:], start=2):
        name = FINAL if number == len(plan) else f"{INTERMEDIATE}{number}"
        student = prune_again(student, sizes, rows, name)
    return student


def expected_tokens(
    targets: StoredTargets, rows: Sequence[Row], tokenizer: PreTrainedTokenizerFast
) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Yields (ids of `tokenizer` [n], expected counts [n]) of the targets, -1 for a token that it lacks.

    Full distributions are summed over all rows; others give the stored probabilities of each response.
    """
    teacher = targets.teacher
    teacher_tokenizer = loading.load_teacher_tokenizer(teacher)
    token_map = vocabulary.token_map(teacher_tokenizer, tokenizer)
    if targets.targets.full:
        counts = store.read_expected_counts(targets.folder)
        pairs = iter([(torch.arange(len(counts)), counts)])
    else:
        pairs = (
            (stored.ids.flatten().long(), stored.log_probs.flatten().float().exp())
            for _, stored in store.read_targets(targets.folder, targets.source(teacher_tokenizer, rows))
            if isinstance(stored, StoredTopK)
        )
    for ids, numbers in pairs:
        yield (ids if token_map is None else token_map[ids]), numbers


def calibration(tokenizer: PreTrainedTokenizerFast, sizes: PrunedStudent, rows: Sequence[Row]) -> list[Example]:
    """The rows that the importance of layers, neurons and heads is measured on, evenly spaced."""
    spaced = rows[:: max(len(rows) // sizes.num_calibration_samples, 1)]
    return [encode(tokenizer, row) for row in spaced[: sizes.num_calibration_samples]]


def _section(name: str) -> str:
    """The section of params.yaml that gives the sizes."""
    return "init" if name == FINAL else f"train.progressive.students, {name}"


def _require_smaller(student: PreTrainedModel, before: PreTrainedModel, name: str) -> None:
    size, limit = loading.parameter_count(student), loading.parameter_count(before)
    if size >= limit:
        raise UserError(
            f"train.progressive: {name} has {size:,} parameters and the model that it is pruned from {limit:,}; each "
            "must be smaller. Give it fewer layers, a smaller intermediate_size or fewer num_key_value_heads, or leave "
            "it out."
        )
