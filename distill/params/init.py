"""Section `init`: the student before training."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from distill.params.fields import Layers, Line, Model, Name, Section, Text


class PrunedStudent(Section):
    """A student pruned from a teacher: some layers, of each some MLP neurons and heads, part of the vocabulary."""

    source: Literal["pruned"]
    teacher: Name
    layers: Layers
    layer_selection: Literal["explicit", "uniform", "first_and_last", "block_influence"]
    intermediate_size: Annotated[int, Field(ge=1, le=10**7)] | None
    num_key_value_heads: Annotated[int, Field(ge=1, le=10**5)] | None
    num_calibration_samples: Annotated[int, Field(ge=1, le=10**6)]
    vocab_size: Annotated[int, Field(ge=300, le=10**7)]

    @model_validator(mode="after")
    def _layers_ascend(self) -> Self:
        if isinstance(self.layers, list) and self.layers != sorted(set(self.layers)):
            raise ValueError(f"layers: a list must name each layer once, in ascending order, got {self.layers}")
        return self

    @model_validator(mode="after")
    def _explicit_goes_with_a_list(self) -> Self:
        if isinstance(self.layers, list) != (self.layer_selection == "explicit"):
            raise ValueError(
                "layer_selection: explicit goes with a list of layers, every other selection with a number of them, "
                f"got {self.layer_selection} with {self.layers}"
            )
        return self


class PretrainedStudent(Section):
    """An existing checkpoint: a folder or a hub name, with its license for the cards."""

    source: Literal["pretrained"]
    model: Model
    revision: Line | None
    license: Text | None


Init = Annotated[PrunedStudent | PretrainedStudent, Field(discriminator="source")]
