"""Types of values in params.yaml."""

from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Discriminator, Field, Tag


def _number(value: Any) -> Any:
    """The number of a string such as `1e-4`, which PyYAML reads as a string and DVC as a number."""
    if isinstance(value, str):
        try:
            return float(value)
        except ValueError:
            return value
    return value


Real = Annotated[float, BeforeValidator(_number), Field(allow_inf_nan=False)]
Positive = Annotated[Real, Field(gt=0)]
NotNegative = Annotated[Real, Field(ge=0)]
Fraction = Annotated[Real, Field(ge=0, le=1)]
PositiveFraction = Annotated[Real, Field(gt=0, le=1)]
Count = Annotated[int, Field(ge=1)]
Name = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_-]*$")]
Text = Annotated[str, Field(min_length=1)]
LayerNumber = Annotated[int, Field(ge=0)]
LayerList = Annotated[list[LayerNumber], Field(min_length=1)]
Layers = Annotated[  # a number of layers, or a list of them
    Annotated[Count, Tag("number")] | Annotated[LayerList, Tag("list")],
    Discriminator(lambda value: "list" if isinstance(value, list) else "number"),
]


class Section(BaseModel):
    """A section of params.yaml. Every key must be known, present and of its type."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)
