"""Section `targets`: the teacher's distributions that a student learns from."""

from typing import Annotated, ClassVar, Literal, Self

from pydantic import Field, model_validator

from distill.params.fields import Count, Fraction, LayerList, Name, SamplingTemperature, Section, Tokens


class TeacherTargets(Section):
    """The keys that every kind of targets has.

    `stored`: the stage writes the targets of each row. `full`: a student learns from the teacher's full distribution.
    `layers` are layers of that teacher whose hidden states are stored in addition; `score_without_prompt` adds a pass
    without the prompts, for the confidence measure ifd.
    """

    stored: ClassVar[bool]
    full: ClassVar[bool]

    teacher: Name
    batch_tokens: Count
    layers: LayerList | None
    score_without_prompt: bool

    @property
    def size(self) -> int | None:
        """Tokens stored at each position (top_k, num_draws), None for a full distribution."""
        return None

    @model_validator(mode="after")
    def _layers_ascend(self) -> Self:
        if self.layers is not None and self.layers != sorted(set(self.layers)):
            raise ValueError(f"layers: must name each layer once, in ascending order, got {self.layers}")
        return self


class TopKTargets(TeacherTargets):
    """The teacher's k best tokens at each position of a response, and the mass of all others.

    The one kind for a teacher of another tokenizer family than the student's, or with chat_template few_shot.
    """

    stored, full = True, False
    kind: Literal["top_k"]
    top_k: Annotated[int, Field(ge=1, le=1024)]

    @property
    def size(self) -> int:
        """Tokens stored at each position."""
        return self.top_k


class SampledTargets(TeacherTargets):
    """Tokens drawn from the teacher's distribution at each position."""

    stored, full = True, False
    kind: Literal["sampled"]
    num_draws: Annotated[int, Field(ge=1, le=255)]

    @property
    def size(self) -> int:
        """Draws at each position."""
        return self.num_draws


class HiddenStateTargets(TeacherTargets):
    """The input of the teacher's output matrix at each position, from which its full distribution follows."""

    stored, full = True, True
    kind: Literal["hidden_states"]


class OnlineTargets(TeacherTargets):
    """Nothing is stored for a row: the teacher runs in each training step."""

    stored, full = False, True
    kind: Literal["online"]


class OnPolicyTargets(TeacherTargets):
    """As online, and for a fraction of the batches the teacher scores responses that the student writes itself."""

    stored, full = False, True
    kind: Literal["on_policy"]
    layers: None
    on_policy_fraction: Fraction
    max_new_tokens: Tokens
    sampling_temperature: SamplingTemperature


Targets = Annotated[
    TopKTargets | SampledTargets | HiddenStateTargets | OnlineTargets | OnPolicyTargets, Field(discriminator="kind")
]
