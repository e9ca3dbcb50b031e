"""The student of params.yaml: pruned from the teacher or pretrained, with an adapter."""

from typing import Annotated, Literal, Self

from pydantic import Discriminator, Field, Tag, model_validator

from distill.params.fields import Count, Name, Positive, Real, Section, Text

LayerNumber = Annotated[int, Field(ge=0)]
LayerList = Annotated[list[LayerNumber], Field(min_length=1)]
Layers = Annotated[
    Annotated[Count, Tag("number")] | Annotated[LayerList, Tag("list")],
    Discriminator(lambda value: "list" if isinstance(value, list) else "number"),
]


class TeacherStudent(Section):
    """A student cut from the teacher: some of its layers, of each some neurons and heads, part of its vocabulary."""

    source: Literal["teacher"]
    teacher: Name
    layers: Layers
    layer_choice: Literal["listed", "evenly", "first_and_last", "block_influence"]
    neurons: Count | None
    kv_heads: Count | None
    calibration_rows: Count
    vocabulary: Annotated[int, Field(ge=300)]

    @model_validator(mode="after")
    def _ascending(self) -> Self:
        if isinstance(self.layers, list) and self.layers != sorted(set(self.layers)):
            raise ValueError(f"layers: a list must name each layer once, in ascending order, given {self.layers}")
        return self

    @model_validator(mode="after")
    def _listed_is_a_list(self) -> Self:
        if isinstance(self.layers, list) != (self.layer_choice == "listed"):
            raise ValueError(
                "layer_choice: listed goes with a list of layers, and every other choice with a number of them, "
                f"given {self.layer_choice} with {self.layers}"
            )
        return self


TargetModules = Annotated[
    Annotated[Literal["all-linear"], Tag("word")] | Annotated[list[Text], Field(min_length=1), Tag("list")],
    Discriminator(lambda value: "list" if isinstance(value, list) else "word"),
]


class Adapter(Section):
    """Low-rank matrices beside linear layers, trained in their place (LoRA), the base in 4 bits meanwhile (QLoRA)."""

    rank: Count
    alpha: Positive
    dropout: Annotated[Real, Field(ge=0, lt=1)]
    target_modules: TargetModules
    quantization: Literal["nf4"] | None


class PretrainedStudent(Section):
    """A student that exists: a folder or a hub name; with an adapter nothing else of it is trained."""

    source: Literal["pretrained"]
    model: Text
    revision: Text | None
    adapter: Adapter | None
