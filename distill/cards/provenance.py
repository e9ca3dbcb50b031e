"""Provenance of a student: its sources, their licenses, and the choices and files that it was made with."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from distill.cards.hub import common_license
from distill.core.files import file_hash
from distill.params.schema import Params
from distill.students.runs import Run

Row = dict[str, Any]
UNSTATED = "not stated: find out before you share the student"


@dataclass(frozen=True)
class Provenance:
    """Everything that a student depends on.

    `teachers` are the entries of params.yaml with name, model and license; `student`, `schedule` and `settings` (empty
    for init) its sections. `rows` are the training rows, `hashes` the SHA-256 of files by path. `class_labels` is the
    set that the student chooses from, if any. `targets` names the teacher of its logit targets, if any. `prompts` is
    the section generate.prompts: where the prompts come from.
    """

    variant: str
    teachers: Sequence[Mapping[str, Any]]
    student: Mapping[str, Any]
    schedule: Mapping[str, Any]
    settings: Mapping[str, Any]
    seed: int
    rows: Sequence[Row]
    hashes: Mapping[str, str]
    class_labels: Sequence[str] | None
    targets: str | None
    prompts: Mapping[str, Any]

    @property
    def base(self) -> str:
        """The model that the student's weights come from, as params.yaml names it."""
        if self.student["source"] == "pretrained":
            return self.student["model"]
        return next(teacher["model"] for teacher in self.teachers if teacher["name"] == self.student["teacher"])

    @property
    def sources(self) -> list[list[str]]:
        """Name, contribution (weights, responses or probabilities) and license of each model behind the student."""
        models = {teacher["name"]: teacher for teacher in self.teachers}
        responses = Counter(row["teacher"] for row in self.rows) if self.variant != "init" else Counter()
        sources = []
        if self.student["source"] == "pretrained":
            sources.append([self.student["model"], "its weights", self.student["license"] or UNSTATED])
        for name in dict.fromkeys([*models, *sorted(responses)]):
            pruned = self.student["source"] == "pruned" and self.student["teacher"] == name
            shares = ["its weights"] * pruned + [f"{responses[name]:,} responses"] * (name in responses)
            shares = shares or ["its probabilities"] * (name == self.targets)
            if shares:
                teacher = models.get(name, {"model": "not in params.yaml", "license": None})
                sources.append([f"{name}: {teacher['model']}", " and ".join(shares), teacher["license"] or UNSTATED])
        return sources

    @property
    def license(self) -> str | None:
        """The license that all sources share if hubs know it, else None."""
        return common_license(license for _, _, license in self.sources)


def provenance(params: Params, run: Run, rows: Sequence[Row], files: Sequence[Path]) -> Provenance:
    """The provenance of a run's student, trained on the rows; `files` are named by their hashes."""
    pinned = {
        teacher.model: teacher.sha256
        for teacher in params.teachers
        if teacher.kind == "local" and teacher.sha256 is not None
    }
    train, targets = params.train, params.targets
    settings = {"init": {}, "sft": {"loss": {"kind": "cross_entropy"}}, "distilled": train.distilled.model_dump()}
    excluded = {"distilled", "report_to", "compile"} | {name for name, value in train if value is None}
    uses_targets = run.variant == "distilled" and train.distilled.loss.needs_teacher
    return Provenance(
        variant=run.variant,
        teachers=[teacher.model_dump() for teacher in params.teachers],
        student=params.init.model_dump(),
        schedule=train.model_dump(exclude=excluded),
        settings=settings[run.variant],
        seed=params.data_seed if run.seed is None else run.seed,
        rows=rows,
        hashes={str(path): file_hash(path) for path in files} | pinned,
        class_labels=params.generate.class_labels,
        targets=targets.teacher if targets is not None and uses_targets else None,
        prompts=params.generate.prompts.model_dump(exclude_none=True),
    )
