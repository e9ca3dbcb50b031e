"""Trainings one after the other: down a ladder of students, then in rounds in which the student is the teacher.

A student much smaller than its teacher learns more by way of others between the two (Mirzadeh et al. 2020, teacher
assistants): each rung is cut from the trained one above it. In rounds the student of the last one teaches the next
(Furlanello et al. 2018, born-again networks).
"""

import copy
import math
import shutil
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch

from distill.core.files import atomic_folder, read_json, write_json
from distill.modeling import loading
from distill.modeling.sampling import request_seed
from distill.params.students import TeacherStudent
from distill.params.train import Ladder, Rounds
from distill.students import build
from distill.training.data import Lessons, Rows
from distill.training.ema import Average
from distill.training.fit import Training, fit
from distill.training.trackers import Curves

RUNG = "rung-"
STUDENT = "student"  # the training of a student that has no rounds
TRAINED, AVERAGE, RECORD = "trained", "average", "training.json"
Entries = list[dict[str, Any]]


@dataclass(frozen=True)
class Step:
    """One training: of a rung, or of the student itself.

    `start` is what the network is before it: `cut` by `choice` from the one of the step before (in the first step from
    the teacher), that one as it is (`last`), or the student as it was before its first round (`untrained`).
    `by_student`: the teacher is the network of the step before, or its average.
    """

    name: str
    epochs: int
    start: str
    choice: TeacherStudent | None
    by_student: bool

    @property
    def is_rung(self) -> bool:
        """Whether it trains another student than the last."""
        return self.name.startswith(RUNG)


@dataclass(frozen=True)
class Trained:
    """What a training that has ended leaves to tell."""

    name: str
    parameters: int
    layers: list[int] | None  # of the teacher, where the network is cut from it
    first: float  # validation loss before it, in nats per token of the teacher
    log: Entries  # the Trainer's
    counts: dict[str, int]  # steps, epochs, response_tokens

    @property
    def loss(self) -> float:
        """The validation loss at its end."""
        return [entry["validation_loss"] for entry in self.log if "validation_loss" in entry][-1]


def cuts(student: TeacherStudent, ladder: Ladder | None) -> list[TeacherStudent]:
    """What each rung keeps of the one above, the first of the teacher; the last is the student.

    Lists of layers, which params give in the teacher's numbering, are in that of the rung above.
    """
    kept = ("layers", "neurons", "kv_heads")
    rungs = ladder.rungs if ladder else []
    choices = [student.model_copy(update={name: getattr(rung, name) for name in kept}) for rung in rungs]
    result: list[TeacherStudent] = []
    above: list[int] | None = None
    for choice in [*choices, student]:
        layers = choice.layers
        if isinstance(layers, list):
            own = layers if above is None else [above.index(layer) for layer in layers]
            above, layers = layers, own
        result.append(choice.model_copy(update={"layers": layers}))
    return result


def steps(choices: Sequence[TeacherStudent], ladder: Ladder | None, rounds: Rounds | None, epochs: int) -> list[Step]:
    """The trainings in their order; `choices` are `cuts`, or nothing for a student that is not cut."""
    choice = choices[-1] if choices else None
    result: list[Step] = []
    for rung, kept in zip(ladder.rungs if ladder else [], choices, strict=False):
        by_student = bool(result) and ladder is not None and ladder.teacher == "above"
        result.append(Step(f"{RUNG}{len(result) + 1}", rung.epochs, "cut", kept, by_student))
    by_student = bool(result) and ladder is not None and ladder.teacher == "above"
    if rounds is None:
        return [*result, Step(STUDENT, epochs, "cut", choice, by_student)]
    result.append(Step("round-1", epochs, "cut", choice, by_student))
    return result + [
        Step(f"round-{number}", epochs, rounds.start, None, True) for number in range(2, rounds.number + 1)
    ]


def seed_of(step: Step, seed: int) -> int:
    """The training seed of a step: the run's own for the student's first training, and one drawn from it for others."""
    return seed if step.name in (STUDENT, "round-1") else request_seed(seed, step.name)


def run(
    course: Sequence[Step],
    network: Any,
    layers: list[int] | None,
    tokenizer: Any,
    rows: Rows,
    training: Training,
    lessons: Callable[[Step, Any, Path | None, int], Lessons],
    average_decay: float | None,
) -> tuple[Any, list[Trained], Trained]:
    """The student, which is the best of its rounds, all trainings, and which of them made it.

    `network` is the one that the first step trains, of these layers of the teacher. `lessons(step, network, folder,
    seed)` is what a network learns from: the student in the folder or, where it is None, the teacher. Trainings that
    have ended are kept in the folder of checkpoints, so that an interrupted course goes on where it was.
    """
    done: list[Trained] = []
    fresh = None
    for place, step in enumerate(course):
        before = folder_of(training.checkpoints, course[place - 1].name) if place else None
        if before is not None:
            network, kept = _start(step, before, tokenizer, rows, fresh)
            if layers is not None and kept is not None:
                layers = [layers[index] for index in kept]
        follows = place + 1 < len(course)
        if follows and course[place + 1].start == "untrained" and fresh is None:
            fresh = copy.deepcopy(network)
        folder = folder_of(training.checkpoints, step.name)
        if (folder / RECORD).exists():
            done.append(Trained(**read_json(folder / RECORD, "stage train")))
            print(f"{step.name} has been trained")
            continue
        seed = seed_of(step, training.seed)
        teacher = before / AVERAGE if before and average_decay and not course[place - 1].is_rung else before
        averaged = Average(network, average_decay) if average_decay and follows and not step.is_rung else None
        own = replace(
            training,
            name=training.name if len(course) == 1 else f"{training.name} {step.name}",
            seed=seed,
            schedule=training.schedule.model_copy(update={"epochs": step.epochs}),
            checkpoints=folder.parent,
        )
        size, first = loading.parameter_count(network), training.measure(network)
        print(f"{step.name}: {size:,} parameters, validation perplexity {math.exp(first):.4g} before training")
        curves = Curves(
            training.curves, done[0].first if done else first, joined(done), sum(one.counts["steps"] for one in done)
        )
        taught = lessons(step, network, teacher if step.by_student else None, seed)
        log, counts = fit(network, taught, own, [*([averaged] if averaged else []), curves])
        done.append(Trained(step.name, size, layers, first, log, counts))
        if follows:
            _keep(folder, network, tokenizer, averaged, done[-1])
    rounds = [place for place, step in enumerate(course) if not step.is_rung]
    best = min(rounds, key=lambda place: done[place].loss)
    if best != len(course) - 1:
        network, _ = loading.load(str(folder_of(training.checkpoints, course[best].name)), torch.float32)
    return network, done, done[best]


def folder_of(checkpoints: Path, name: str) -> Path:
    """Where the network of a step is once it is trained, with its tokenizer, in fp32; that of the last step is not."""
    return checkpoints / name / TRAINED


def rungs(done: Sequence[Trained]) -> list[Trained]:
    """The trainings of other students than the last."""
    return [one for one in done if one.name.startswith(RUNG)]


def joined(done: Sequence[Trained]) -> Entries:
    """The logs one after the other, with the step and the epoch of the whole course, and the name of each training."""
    result = []
    step = epoch = 0
    for one in done:
        per_epoch = one.counts["steps"] / one.counts["epochs"]
        result += [
            entry | {"step": step + entry["step"], "epoch": epoch + entry["step"] / per_epoch, "training": one.name}
            for entry in one.log
        ]
        step, epoch = step + one.counts["steps"], epoch + one.counts["epochs"]
    return result


def report(done: Sequence[Trained], best: Trained) -> dict[str, Any]:
    """Steps, epochs and response tokens of all trainings together, and of several each one's losses and the best."""
    result: dict[str, Any] = {
        name: sum(one.counts[name] for one in done) for name in ("steps", "epochs", "response_tokens")
    }
    if len(done) > 1:
        result["trainings"] = {
            one.name: {
                "parameters": one.parameters,
                "layers": one.layers,
                "epochs": one.counts["epochs"],
                "first_validation_loss": round(one.first, 4),
                "validation_loss": round(one.loss, 4),
            }
            for one in done
        }
        result["kept"] = best.name
    return result


def _start(step: Step, before: Path, tokenizer: Any, rows: Rows, fresh: Any) -> tuple[Any, list[int] | None]:
    """The network that a step trains, and which layers it keeps of the one before where it is cut from that."""
    if step.start == "untrained":
        return copy.deepcopy(fresh), None
    network, _ = loading.load(str(before), torch.float32)
    if step.start == "last":
        return network, None
    assert step.choice is not None, "what is cut has a choice"
    return build.cut_further(network, tokenizer, step.choice, rows, step.name)


def _keep(folder: Path, network: Any, tokenizer: Any, averaged: Average | None, trained: Trained) -> None:
    """Writes a trained network for the steps after it, and removes its checkpoints, which are of no more use."""
    with atomic_folder(folder) as target:
        loading.save(network, tokenizer, target)
        if averaged is not None:
            loading.save(averaged.network, tokenizer, target / AVERAGE)
        write_json(target / RECORD, asdict(trained))
    for checkpoint in folder.parent.glob("checkpoint-*"):
        shutil.rmtree(checkpoint)
