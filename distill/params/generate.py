"""Section `generate`: prompts, sampling, and what becomes of several responses."""

from typing import Annotated, Literal, Self

from pydantic import Discriminator, Field, Tag, model_validator

from distill.params.fields import (
    Count,
    Fraction,
    Glob,
    Line,
    Name,
    Positive,
    PositiveFraction,
    SamplingTemperature,
    Section,
    SmallCount,
    Text,
    Tokens,
)

Label = Annotated[str, Field(pattern=r"^\S(.*\S)?$")]
BUILDERS = ("csv", "json", "parquet", "text")  # of the `datasets` library, for local files
ColumnOrBuckets = Annotated[
    Annotated[Count, Tag("buckets")] | Annotated[Text, Tag("column")],
    Discriminator(lambda value: "column" if isinstance(value, str) else "buckets"),
]


class JsonlPrompts(Section):
    """A JSONL file with `id`, `topic` and `messages` in each line."""

    source: Literal["jsonl"]
    path: Line


class FolderPrompts(Section):
    """A folder of texts. Each chunk of at most `chunk_words` words replaces {text} in `template` and is a prompt."""

    source: Literal["folder"]
    path: Line
    pattern: Glob
    chunk_words: Tokens
    template: Annotated[Text, Field(pattern=r"\{text\}")]


class DatasetPrompts(Section):
    """A Hugging Face data set: a hub name at a pinned revision, or a builder (`BUILDERS`) for local files.

    DVC tracks `path`: the local files, or for a hub name a small text file with the source of the prompts. `topic` is
    a column, or a number of hash buckets.
    """

    source: Literal["dataset"]
    path: Line
    name: Line
    config: Line | None
    split: Line
    column: Text
    topic: ColumnOrBuckets
    revision: Annotated[str, Field(pattern=r"^[0-9a-f]{40}$")] | None
    streaming: bool
    limit: Count | None

    @model_validator(mode="after")
    def _pinned(self) -> Self:
        if self.name in BUILDERS and self.revision is not None:
            raise ValueError(
                f"revision: must be null for local files ({self.name}), which DVC versions, got {self.revision!r}"
            )
        if self.name not in BUILDERS and self.revision is None:
            raise ValueError(
                f"revision: must be the 40 digits of a commit of {self.name!r}, so that the prompts stay the same, got "
                f"null. For local files set name to one of {BUILDERS}."
            )
        return self


Prompts = Annotated[JsonlPrompts | FolderPrompts | DatasetPrompts, Field(discriminator="source")]


class FewShotExample(Section):
    """An example before every prompt."""

    user: Text
    assistant: Text


class SelfInstruct(Section):
    """New prompts written by a teacher (Self-Instruct, Wang et al. 2023).

    Each of `num_rounds` rounds sends `requests_per_round` requests, each with examples of one topic. A new prompt
    whose ROUGE-L with any other prompt is `max_rouge_l` or more is dropped.
    """

    teacher: Name
    num_rounds: SmallCount
    requests_per_round: Annotated[int, Field(ge=1, le=10**6)]
    examples_per_request: SmallCount
    max_rouge_l: PositiveFraction
    max_new_tokens: Tokens
    sampling_temperature: SamplingTemperature
    top_p: PositiveFraction


class Mixture(Section):
    """What becomes of several responses to one prompt. `clean` selects them (distill/cleaning/selection.py)."""

    policy: Literal["all", "best_of_n", "majority_vote", "fuse"]
    judge: Name | None
    aggregator: Name | None

    @model_validator(mode="after")
    def _complete(self) -> Self:
        if self.policy == "best_of_n" and self.judge is None:
            raise ValueError("judge: must be the name of a teacher with policy best_of_n, got null")
        if (self.policy == "fuse") != (self.aggregator is not None):
            raise ValueError(
                "aggregator: must be the name of a teacher with policy fuse and null with any other, got "
                f"{self.aggregator} with policy {self.policy}"
            )
        return self


class Generate(Section):
    """Prompts and sampling parameters of all teachers."""

    prompts: Prompts
    system_prompt: Text | None
    few_shot: list[FewShotExample]
    self_instruct: SelfInstruct | None
    class_labels: Annotated[list[Label], Field(min_length=2)] | None
    mixture: Mixture
    max_new_tokens: Tokens
    sampling_temperature: SamplingTemperature
    top_p: PositiveFraction
    num_samples: SmallCount
    batch_size: Count
    batch_tokens: Count
    required_capabilities: list[Literal["logprobs", "temperature", "seed", "usage"]]
    budget_usd: Positive | None
    max_failed_fraction: Fraction

    @model_validator(mode="after")
    def _samples_differ(self) -> Self:
        if self.num_samples > 1 and self.sampling_temperature == 0:
            raise ValueError(
                f"num_samples: must be 1 with sampling_temperature 0, got {self.num_samples}. Greedy responses are all "
                "equal: set sampling_temperature above 0."
            )
        return self

    @model_validator(mode="after")
    def _labels_are_a_closed_set(self) -> Self:
        if self.class_labels is None:
            return self
        if len(self.class_labels) != len(set(self.class_labels)):
            raise ValueError(f"class_labels: must be different, got {self.class_labels}")
        if self.num_samples > 1:
            raise ValueError(
                f"num_samples: must be 1 with class_labels, since the choice never varies, got {self.num_samples}"
            )
        if self.mixture.judge is not None or self.mixture.aggregator is not None:
            raise ValueError(
                "mixture: judge and aggregator must be null with class_labels, and policy all or majority_vote, got "
                f"judge {self.mixture.judge} and aggregator {self.mixture.aggregator}"
            )
        return self
