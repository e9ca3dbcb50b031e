"""What is measured and drawn: sections `evaluate` and `plot`."""

from typing import Annotated

from pydantic import Field

from distill.schema.fields import Count, Name, Section, Text


class Latency(Section):
    """Batch-1 timing: `runs` interleaved runs a model after `warmup` ones."""

    prompt_tokens: Count
    new_tokens: Annotated[int, Field(ge=2)]
    warmup: Annotated[int, Field(ge=0)]
    runs: Count


class Evaluate(Section):
    """What is measured, on the held-out topics."""

    teacher: Name
    max_items: Count
    max_generations: Count
    max_new_tokens: Count
    batch_tokens: Count
    bootstrap: Annotated[int, Field(ge=100)]
    extra_tasks: list[Text]
    extra_limit: Count | None
    latency: Latency


class Plot(Section):
    """How the figures look."""

    dpi: Annotated[int, Field(ge=50, le=600)]
    samples: Count
