"""Section `plot` of params.yaml."""

from typing import Annotated

from pydantic import Field

from distill.params.fields import Section, SmallCount


class Plot(Section):
    """Resolution of the figures and size of the report."""

    dpi: Annotated[int, Field(ge=50, le=600)]
    num_samples: SmallCount
