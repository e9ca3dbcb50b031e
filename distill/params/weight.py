"""Section `weight` of params.yaml."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from distill.params.fields import Count, Fraction, Name, NotNegative, PositiveFraction, Real, Section


class Stored(Section):
    """The teacher's k best tokens at each place of a response, and the mass of all others, written by `weight`.

    The one kind for a teacher of another tokenizer family than the student's, or of chat_template few_shot.
    """

    kind: Literal["stored"]
    teacher: Name
    batch_tokens: Count
    top_k: Annotated[int, Field(ge=1, le=1024)]


class Sampled(Section):
    """Tokens drawn from the teacher's distribution at each place, written by `weight`."""

    kind: Literal["sampled"]
    teacher: Name
    batch_tokens: Count
    draws: Annotated[int, Field(ge=1, le=255)]


class Hidden(Section):
    """What enters the teacher's output matrix at each place, written by `weight`: its whole distribution."""

    kind: Literal["hidden"]
    teacher: Name
    batch_tokens: Count


class Online(Section):
    """Nothing is written: `train` asks the teacher in each step."""

    kind: Literal["online"]
    teacher: Name
    batch_tokens: Count


class OnPolicy(Section):
    """As online, and in a share of the steps the teacher judges answers that the student writes itself."""

    kind: Literal["on_policy"]
    teacher: Name
    batch_tokens: Count
    student_fraction: Fraction
    max_tokens: Count
    sampling_temperature: NotNegative


Targets = Annotated[Stored | Sampled | Hidden | Online | OnPolicy, Field(discriminator="kind")]
Confidence = Literal[
    "mean_log_prob",
    "min_log_prob",
    "lowest_window_log_prob",
    "entropy",
    "margin",
    "self_consistency",
    "ifd",
    "judge_score",
]


class Weight(Section):
    """How much each sample counts."""

    scheme: Literal["confidence", "uniform", "shuffled"]
    confidence: Confidence
    window: Count
    strength: NotNegative
    length_buckets: Count
    clip: Annotated[Real, Field(gt=1)]
    min_effective_share: PositiveFraction
    targets: Targets | None
    layers: Annotated[list[Annotated[int, Field(ge=0)]], Field(min_length=1)] | None

    @model_validator(mode="after")
    def _layers_are_the_targets_teachers(self) -> Self:
        if self.layers is not None and self.targets is None:
            raise ValueError("layers: are those of the teacher of weight.targets, but that is null")
        if self.layers is not None and self.layers != sorted(set(self.layers)):
            raise ValueError(f"layers: must name each layer once, in ascending order, given {self.layers}")
        return self

    @model_validator(mode="after")
    def _ifd_has_a_model(self) -> Self:
        if self.confidence == "ifd" and self.targets is None:
            raise ValueError("confidence: ifd is measured with the teacher of weight.targets, but that is null")
        return self
