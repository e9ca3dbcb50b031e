"""Section `evaluate` of params.yaml."""

from typing import Annotated, Self

from pydantic import Field, model_validator

from distill.params.fields import Count, Name, Section, Text


class Latency(Section):
    """Batch-1 timing: `runs` interleaved runs a model after `warmup` ones."""

    prompt_tokens: Count
    new_tokens: Annotated[int, Field(ge=2)]
    warmup: Annotated[int, Field(ge=0)]
    runs: Count


class ExtraTask(Section):
    """A task of lm-eval, by its name or the path of its YAML file, and how it is asked."""

    task: Text
    num_fewshot: Annotated[int, Field(ge=0)] | None
    chat_template: bool
    fewshot_as_multiturn: bool
    revision: Text | None

    @model_validator(mode="after")
    def _turns_need_a_template(self) -> Self:
        if self.fewshot_as_multiturn and not self.chat_template:
            raise ValueError("fewshot_as_multiturn: examples are turns of a chat only with chat_template: true")
        return self


class Evaluate(Section):
    """What is measured, on the held-out topics."""

    teacher: Name
    max_items: Count
    max_generations: Count
    max_new_tokens: Count
    batch_tokens: Count
    bootstrap: Annotated[int, Field(ge=100)]
    extra_tasks: list[ExtraTask]
    extra_limit: Count | None
    latency: Latency

    @model_validator(mode="after")
    def _tasks_differ(self) -> Self:
        names = [extra.task for extra in self.extra_tasks]
        if len(names) != len(set(names)):
            raise ValueError(f"extra_tasks: two are the same task, given {names}")
        return self
