"""Section `train`: losses, optimization and phases of training."""

from typing import Annotated, ClassVar, Literal, Self

from pydantic import Discriminator, Field, Tag, model_validator

from distill.params.fields import (
    Count,
    Fraction,
    LayerNumber,
    Layers,
    LossTemperature,
    NotNegative,
    Positive,
    Real,
    Section,
    SmallCount,
    Text,
)

TargetModules = Annotated[
    Annotated[Literal["all-linear"], Tag("word")] | Annotated[list[Text], Field(min_length=1), Tag("list")],
    Discriminator(lambda value: "list" if isinstance(value, list) else "word"),
]


class Adapter(Section):
    """LoRA: low-rank matrices that are trained in place of the weights; QLoRA with a base in 4 bits."""

    rank: Annotated[int, Field(ge=1, le=4096)]
    alpha: Annotated[Positive, Field(le=10_000)]
    dropout: Annotated[Real, Field(ge=0, lt=1)]
    target_modules: TargetModules
    quantization: Literal["nf4"] | None


class CrossEntropyLoss(Section):
    """Cross-entropy on the teacher's text."""

    needs_teacher: ClassVar[bool] = False
    kind: Literal["cross_entropy"]


class DivergenceLoss(Section):
    """A divergence from the teacher's distribution; `ce_weight` of the loss is cross-entropy on its text.

    `tail` belongs to top_k targets: the mass outside the k tokens is one outcome (bucket) or is dropped on both sides
    (renormalise). It is null for all other targets.
    """

    kind: Literal["forward_kl", "reverse_kl", "total_variation"]
    ce_weight: Fraction
    temperature: LossTemperature
    tail: Literal["bucket", "renormalise"] | None

    @property
    def needs_teacher(self) -> bool:
        """Whether the teacher's distributions count."""
        return self.ce_weight < 1


class MixtureLoss(DivergenceLoss):
    """A divergence from or to the mixture beta x teacher + (1 - beta) x student."""

    kind: Literal["jsd", "skew_kl", "skew_reverse_kl"]  # type: ignore[assignment]  # other kinds than the base's
    beta: Annotated[Real, Field(gt=0, lt=1)]


Loss = Annotated[CrossEntropyLoss | DivergenceLoss | MixtureLoss, Field(discriminator="kind")]
LayerPair = Annotated[list[LayerNumber], Field(min_length=2, max_length=2)]


class HiddenLoss(Section):
    """Layers of the student learn the hidden states of layers of the teacher; pairs are [teacher's, student's].

    It is the whole loss for the first `hint_fraction` of the steps (hints, FitNets); then, times `weight`, it is
    added to the loss.
    """

    layer_pairs: Annotated[list[LayerPair], Field(min_length=1)]
    distance: Literal["cosine", "mse"]
    projection: bool
    weight: Annotated[NotNegative, Field(le=1000)]
    hint_fraction: Fraction

    @model_validator(mode="after")
    def _has_an_effect(self) -> Self:
        if self.weight == 0 and self.hint_fraction == 0:
            raise ValueError("weight: 0 with hint_fraction: 0 has no effect; set hidden_loss to null")
        students = [student for _, student in self.layer_pairs]
        if len(set(students)) < len(students):
            raise ValueError(f"layer_pairs: must name a layer of the student once, got {self.layer_pairs}")
        return self


class Distilled(Section):
    """The distillation loss."""

    loss: Loss
    hidden_loss: HiddenLoss | None


class Optimization(Section):
    """Optimiser and schedule, the same for every student."""

    num_train_epochs: SmallCount
    batch_size: Count
    gradient_accumulation_steps: Count
    learning_rate: Annotated[Positive, Field(le=1)]
    warmup_ratio: Fraction
    lr_scheduler_type: Literal["linear", "cosine", "constant"]
    weight_decay: Fraction
    max_grad_norm: Positive
    max_length: Annotated[int, Field(ge=16, le=10**6)]
    logging_steps: Count
    save_steps: Count

    @model_validator(mode="after")
    def _saves_are_logged(self) -> Self:
        if self.save_steps % self.logging_steps:
            raise ValueError(
                f"save_steps ({self.save_steps}) must be a multiple of logging_steps ({self.logging_steps}), so that a "
                "resumed run logs the same losses"
            )
        return self


class IntermediateStudent(Section):
    """A student between the teacher and the final one: what it keeps, and its epochs."""

    layers: Layers
    intermediate_size: Annotated[int, Field(ge=1, le=10**7)] | None
    num_key_value_heads: Annotated[int, Field(ge=1, le=10**5)] | None
    num_train_epochs: SmallCount


class Progressive(Section):
    """Students from the largest to the final one, each pruned from the trained one before it.

    `teacher`: each learns from the original teacher, or from the previous student.
    """

    teacher: Literal["original", "previous"]
    students: Annotated[list[IntermediateStudent], Field(min_length=1)]


class SelfDistillation(Section):
    """The student is trained `num_generations` times, after the first by the student of the generation before.

    Each starts from the previous student or from the initial one; with `ema_decay` the teacher is the exponential
    moving average of the previous student's weights.
    """

    num_generations: Annotated[int, Field(ge=2, le=100)]
    start: Literal["previous", "initial"]
    ema_decay: Annotated[Real, Field(gt=0, lt=1)] | None


class Train(Section):
    """How students are trained."""

    optimization: Optimization
    distilled: Distilled
    progressive: Progressive | None
    self_distillation: SelfDistillation | None
    adapter: Adapter | None
    save_dtype: Literal["bfloat16", "float32"]
    compile: bool
    report_to: Literal["wandb", "mlflow", "trackio"] | None

    @model_validator(mode="after")
    def _adapters_are_not_averaged(self) -> Self:
        if self.adapter is not None and self.self_distillation is not None and self.self_distillation.ema_decay:
            raise ValueError(
                "self_distillation.ema_decay: must be null with an adapter, since each generation has a new one, got "
                f"{self.self_distillation.ema_decay:g}"
            )
        return self

    @model_validator(mode="after")
    def _students_as_teachers_need_a_divergence(self) -> Self:
        if self.distilled.loss.needs_teacher:
            return self
        if self.self_distillation is not None:
            raise ValueError("self_distillation: needs a distilled.loss that learns from a teacher's distributions")
        if self.progressive is not None and self.progressive.teacher == "previous":
            raise ValueError(
                "progressive.teacher: previous needs a distilled.loss that learns from a teacher's distributions"
            )
        return self

    @model_validator(mode="after")
    def _hidden_states_are_the_original_teachers(self) -> Self:
        if self.progressive is not None and self.progressive.teacher == "previous" and self.distilled.hidden_loss:
            raise ValueError("progressive.teacher: distilled.hidden_loss needs original, whose layers alone are stored")
        return self
