"""Run the phases of training: train, keep, resume, and choose the best generation."""

import copy
import shutil
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel

from distill.core.files import Row, atomic_folder, read_json, write_json
from distill.core.numbers import perplexity
from distill.modeling import loading
from distill.students.build import INTERMEDIATE, Student, prune_again
from distill.training import checkpoints
from distill.training.data import TrainingData
from distill.training.ema import EMACallback
from distill.training.fit import FitConfig, FitResult, fit
from distill.training.plan import Phase
from distill.training.trackers import DVCLiveCurves

TRAINED, AVERAGE, RECORD = "trained", "average", "training.json"

Entries = list[dict[str, Any]]
LoadData = Callable[[Phase, PreTrainedModel, Path | None, int], TrainingData]


@dataclass(frozen=True)
class PhaseResult:
    """The record of a finished phase."""

    name: str
    parameters: int
    layers: list[int] | None  # of the teacher, for a pruned model
    first: float  # validation loss before it
    log: Entries  # the Trainer's
    counts: dict[str, int]  # steps, epochs, response_tokens

    @property
    def loss(self) -> float:
        """The validation loss at its end."""
        return [entry["validation_loss"] for entry in self.log if "validation_loss" in entry][-1]


@dataclass(frozen=True)
class Trained:
    """The student of a run, the best of its generations, all phases, and the one that made it."""

    model: PreTrainedModel
    phases: list[PhaseResult]
    best: PhaseResult


def run_phases(
    plan: Sequence[Phase], first: Student, rows: Sequence[Row], config: FitConfig, load_data: LoadData,
    ema_decay: float | None = None,
) -> Trained:  # fmt: skip
    """Trains the phases one after the other, the first of them on the student `first`.

    `load_data(phase, model, folder, seed)` is what a model learns from: the student in the folder or, where it is
    None, the original teacher. Finished phases are kept in the folder of checkpoints, so that an interrupted run
    resumes.
    """
    run = _Run(plan, first, rows, config, load_data, ema_decay)
    for number in range(len(plan)):
        run.phase(number)
    return run.result()


def phase_folder(run: Path, name: str) -> Path:
    """Folder of a finished phase's float32 model and tokenizer in that of a run. The last phase has none."""
    return run / name / TRAINED


def intermediate_students(phases: Sequence[PhaseResult]) -> list[PhaseResult]:
    """The phases of intermediate students."""
    return [phase for phase in phases if phase.name.startswith(INTERMEDIATE)]


def joined_logs(phases: Sequence[PhaseResult]) -> Entries:
    """The logs one after the other, with step and epoch counted through, and the name of each phase."""
    result = []
    step = epoch = 0
    for phase in phases:
        per_epoch = phase.counts["steps"] / phase.counts["epochs"]
        result += [
            entry | {"step": step + entry["step"], "epoch": epoch + entry["step"] / per_epoch, "phase": phase.name}
            for entry in phase.log
        ]
        step, epoch = step + phase.counts["steps"], epoch + phase.counts["epochs"]
    return result


class _Run:
    """The phases of one run, as far as they are through."""

    def __init__(
        self, plan: Sequence[Phase], first: Student, rows: Sequence[Row], config: FitConfig, load_data: LoadData,
        ema_decay: float | None,
    ) -> None:  # fmt: skip
        self.plan, self.rows, self.config = plan, rows, config
        self.load_data, self.ema_decay = load_data, ema_decay
        self.student = first
        self.initial: PreTrainedModel | None = None
        self.done: list[PhaseResult] = []

    def phase(self, number: int) -> None:
        """Trains a phase, or takes what an earlier run left of it."""
        phase, follows = self.plan[number], number + 1 < len(self.plan)
        before = self._folder(self.plan[number - 1]) if number else None
        if before is not None:
            self.student = self._start(phase, before)
        if follows and self.plan[number + 1].start == "initial" and self.initial is None:
            self.initial = copy.deepcopy(self.student.model)
        folder = self._folder(phase)
        if checkpoints.is_whole(folder, phase.name):
            self.done.append(PhaseResult(**read_json(folder / RECORD, "stage train")))
            print(f"{phase.name} is finished")
            return
        average = None
        if self.ema_decay and follows and phase.is_final:
            average = EMACallback(self.student.model, self.ema_decay)
        self.done.append(self._train(phase, self._teacher(number, before), average))
        if follows:
            self._keep(folder, average)

    def result(self) -> Trained:
        """The best of the final student's phases."""
        final = [number for number, phase in enumerate(self.plan) if phase.is_final]
        best = min(final, key=lambda number: self.done[number].loss)
        model = self.student.model
        if best != len(self.plan) - 1:
            model, _ = loading.load_model(str(self._folder(self.plan[best])), torch.float32)
        return Trained(model, self.done, self.done[best])

    def _folder(self, phase: Phase) -> Path:
        return phase_folder(self.config.checkpoints, phase.name)

    def _start(self, phase: Phase, before: Path) -> Student:
        """The student that a phase trains."""
        if phase.start == "initial":
            assert self.initial is not None, "kept before the first training of the final student"
            return replace(self.student, model=copy.deepcopy(self.initial))
        model, _ = loading.load_model(str(before), torch.float32)
        student = replace(self.student, model=model)
        if phase.start == "previous":
            return student
        assert phase.sizes is not None, "a pruned student has sizes"
        return prune_again(student, phase.sizes, self.rows, phase.name)

    def _teacher(self, number: int, before: Path | None) -> Path | None:
        """The folder of the student that teaches the phase, None for the original teacher."""
        if before is None or not self.plan[number].teacher_is_student:
            return None
        return before / AVERAGE if self.ema_decay and self.plan[number - 1].is_final else before

    def _train(self, phase: Phase, teacher: Path | None, average: EMACallback | None) -> PhaseResult:
        model, seed = self.student.model, phase.seed(self.config.seed)
        config = replace(
            self.config,
            name=self.config.name if len(self.plan) == 1 else f"{self.config.name} {phase.name}",
            seed=seed,
            optimization=self.config.optimization.model_copy(update={"num_train_epochs": phase.epochs}),
            checkpoints=self._folder(phase).parent,
        )
        size, first = loading.parameter_count(model), config.validation_loss(model)
        print(f"{phase.name}: {size:,} parameters, validation perplexity {perplexity(first):.4g} before training")
        steps = sum(result.counts["steps"] for result in self.done)
        untrained = self.done[0].first if self.done else first
        curves = DVCLiveCurves(config.curves, untrained, joined_logs(self.done), steps)
        data = self.load_data(phase, model, teacher, seed)
        fitted = fit(model, data, config, [*([average] if average else []), curves])
        return PhaseResult(phase.name, size, self.student.record.get("layers"), first, fitted.log, _counts(fitted))

    def _keep(self, folder: Path, average: EMACallback | None) -> None:
        """Writes a trained model for the phases after it, and removes its checkpoints, which have no more use."""
        with atomic_folder(folder) as target:
            loading.save_model(self.student.model, self.student.tokenizer, target)
            if average is not None:
                loading.save_model(average.model, self.student.tokenizer, target / AVERAGE)
            write_json(target / RECORD, asdict(self.done[-1]))
            checkpoints.seal(target)
        for checkpoint in folder.parent.glob("checkpoint-*"):
            shutil.rmtree(checkpoint)


def _counts(fitted: FitResult) -> dict[str, int]:
    return {"steps": fitted.steps, "epochs": fitted.epochs, "response_tokens": fitted.response_tokens}
