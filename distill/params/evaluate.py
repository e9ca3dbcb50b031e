"""Section `evaluate` of params.yaml."""

from typing import Annotated, Self

from pydantic import Field, model_validator

from distill.params.fields import Count, Line, Name, Section, SmallCount, Tokens


class Latency(Section):
    """Timing at batch 1: `num_runs` interleaved runs of each model after `num_warmup_runs`."""

    prompt_tokens: Tokens
    new_tokens: Annotated[int, Field(ge=2, le=10**6)]
    num_warmup_runs: Annotated[int, Field(ge=0, le=1000)]
    num_runs: SmallCount


class Benchmark(Section):
    """A task of lm-eval, by its name or the path of its YAML file, and its settings, in lm-eval's words."""

    task: Line
    num_fewshot: Annotated[int, Field(ge=0, le=1000)] | None
    apply_chat_template: bool
    fewshot_as_multiturn: bool
    revision: Line | None

    @model_validator(mode="after")
    def _turns_need_a_template(self) -> Self:
        if self.fewshot_as_multiturn and not self.apply_chat_template:
            raise ValueError("fewshot_as_multiturn: true needs apply_chat_template: true, got false")
        return self


class Evaluate(Section):
    """What is measured on the held-out topics."""

    teacher: Name
    max_samples: Count
    max_generations: Count
    max_new_tokens: Tokens
    batch_tokens: Count
    bootstrap_resamples: Annotated[int, Field(ge=100, le=100_000)]
    benchmarks: list[Benchmark]
    benchmark_limit: Count | None
    latency: Latency

    @model_validator(mode="after")
    def _tasks_differ(self) -> Self:
        names = [benchmark.task for benchmark in self.benchmarks]
        if len(names) != len(set(names)):
            raise ValueError(f"benchmarks: tasks must be different, got {names}")
        return self
