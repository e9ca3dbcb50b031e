"""Who learns, and how: section `train`."""

from itertools import pairwise
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from distill.params.fields import Count, Fraction, NotNegative, Positive, Real, Section
from distill.params.students import LayerNumber, Layers, PretrainedStudent, TeacherStudent

Loss = Literal["cross_entropy", "forward_kl", "reverse_kl", "jsd", "skew_kl", "skew_reverse_kl", "total_variation"]


class Untrained(Section):
    """The student before training: there is nothing to choose."""


class Variant(Section):
    """One student's loss; `cross_entropy_share` of it is cross-entropy on the teacher's text, the rest `loss`."""

    loss: Loss
    cross_entropy_share: Fraction
    temperature: Positive
    beta: Annotated[Real, Field(gt=0, lt=1)]
    tail: Literal["bucket", "renormalise"]

    @property
    def needs_teacher(self) -> bool:
        """Whether the loss has a part for a teacher's probabilities."""
        return self.loss != "cross_entropy" and self.cross_entropy_share < 1


Pair = Annotated[list[LayerNumber], Field(min_length=2, max_length=2)]


class LayerLoss(Section):
    """Layers of the student learn the hidden states of layers of the teacher; `pairs` are [teacher's, student's].

    It is the whole loss for the share `alone` of the steps, the first ones; then, times `weight`, it is added to the
    variant's.
    """

    pairs: Annotated[list[Pair], Field(min_length=1)]
    loss: Literal["cosine", "mse"]
    projection: bool
    weight: NotNegative
    alone: Fraction

    @model_validator(mode="after")
    def _is_used(self) -> Self:
        if self.weight == 0 and self.alone == 0:
            raise ValueError("weight: 0 with alone: 0 makes no use of it; set layer_loss to null")
        students = [student for _, student in self.pairs]
        if len(set(students)) < len(students):
            raise ValueError(f"pairs: a layer of the student may be named once, given {self.pairs}")
        return self


class Distilled(Variant):
    """The loss under test, which may teach layers too."""

    layer_loss: LayerLoss | None


class Schedule(Section):
    """The optimisation, the same for every variant."""

    epochs: Count
    batch_size: Count
    gradient_accumulation: Count
    learning_rate: Positive
    warmup_share: Fraction
    decay: Literal["linear", "cosine", "constant"]
    weight_decay: NotNegative
    max_grad_norm: Positive
    max_length: Annotated[int, Field(ge=16)]
    log_every: Count
    save_every: Count

    @model_validator(mode="after")
    def _saves_are_logged(self) -> Self:
        if self.save_every % self.log_every:
            raise ValueError(
                f"save_every ({self.save_every}) must be a multiple of log_every ({self.log_every}), so that a "
                "resumed run logs the same losses"
            )
        return self


class Rung(Section):
    """A student between the teacher and `student`: what it keeps of the one above it, and how long it is trained."""

    layers: Layers
    neurons: Count | None
    kv_heads: Count | None
    epochs: Count


class Ladder(Section):
    """Students from the largest down to `student`, each cut from the one above after that was trained."""

    teacher: Literal["original", "above"]
    rungs: Annotated[list[Rung], Field(min_length=1)]


class Rounds(Section):
    """Self-distillation: the student is trained `number` times, after the first by the student of the time before."""

    number: Annotated[int, Field(ge=2)]
    start: Literal["last", "untrained"]
    average_decay: Annotated[Real, Field(gt=0, lt=1)] | None


class Train(Section):
    """The students: what they start from and how they are trained."""

    student: Annotated[TeacherStudent | PretrainedStudent, Field(discriminator="source")]
    schedule: Schedule
    ladder: Ladder | None
    rounds: Rounds | None
    init: Untrained
    sft: Variant
    distilled: Distilled
    save_dtype: Literal["bfloat16", "float32"]
    compile: bool
    report_to: Literal["wandb", "mlflow", "trackio"] | None

    @model_validator(mode="after")
    def _sft_is_sft(self) -> Self:
        if self.sft.loss != "cross_entropy":
            raise ValueError("sft.loss: must be cross_entropy; the other variant, distilled, takes any loss")
        return self

    @model_validator(mode="after")
    def _ladder_goes_down(self) -> Self:
        if self.ladder is None:
            return self
        if isinstance(self.student, PretrainedStudent):
            raise ValueError(
                "ladder: needs a student cut from the teacher (student.source: teacher), given pretrained; set ladder "
                "to null"
            )
        if self.ladder.teacher == "above" and not self.distilled.needs_teacher:
            raise ValueError("ladder.teacher: above needs a distilled.loss that learns from a teacher's probabilities")
        if self.ladder.teacher == "above" and self.distilled.layer_loss is not None:
            raise ValueError("ladder.teacher: distilled.layer_loss needs original, whose layers alone are stored")
        names = [*(f"ladder.rungs.{place}" for place in range(len(self.ladder.rungs))), "student"]
        steps: list[Rung | TeacherStudent] = [*self.ladder.rungs, self.student]
        listed = self.student.layer_choice == "listed"
        for name, step in zip(names, steps, strict=True):
            if isinstance(step.layers, list) != listed:
                raise ValueError(
                    f"{name}.layers: student.layer_choice {self.student.layer_choice} goes with "
                    f"{'lists' if listed else 'numbers'} of layers on every rung, given {step.layers}; set ladder "
                    "to null for a student without rungs"
                )
        for name, (above, below) in zip(names[1:], pairwise(steps), strict=True):
            for part in ("layers", "neurons", "kv_heads"):
                _require_less(name, part, getattr(above, part), getattr(below, part))
        return self

    @model_validator(mode="after")
    def _an_adapter_is_not_averaged(self) -> Self:
        adapted = isinstance(self.student, PretrainedStudent) and self.student.adapter is not None
        if adapted and self.rounds is not None and self.rounds.average_decay is not None:
            raise ValueError(
                "rounds.average_decay: must be null with student.adapter, whose weights are another adapter's in each "
                f"round, given {self.rounds.average_decay:g}"
            )
        return self

    @model_validator(mode="after")
    def _rounds_have_a_teacher(self) -> Self:
        if self.rounds is not None and not self.distilled.needs_teacher:
            raise ValueError("rounds: need a distilled.loss that learns from a teacher's probabilities")
        return self


def _require_less(name: str, part: str, above: int | list[int] | None, below: int | list[int] | None) -> None:
    """Raises ValueError where a rung has more of a part, or other layers, than the one above; None is all of it."""
    if isinstance(above, list) and isinstance(below, list):
        if others := sorted(set(below) - set(above)):
            raise ValueError(
                f"{name}.{part}: each rung is cut from the one above, which has the layers {above}, given {below} "
                f"with {others} besides; let that one keep these too, or set ladder to null"
            )
    elif isinstance(above, int) and isinstance(below, int) and below > above:
        raise ValueError(
            f"{name}.{part}: the rung above has {above}, and a rung has no more than that, given {below}; let that one "
            "keep as many, or set ladder to null"
        )
