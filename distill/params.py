"""The schema of params.yaml: accepts or refuses a file, and never changes a value in it.

Because a value is either tracked by DVC as a param or refused here, this module is the one import that
no stage lists as a dep; otherwise a new param for plotting would re-run the teacher.
"""

from pathlib import Path
from typing import Annotated, Any, Literal, Self

import yaml
from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    Tag,
    ValidationError,
    model_validator,
)

from distill.errors import UserError

PATH = Path("params.yaml")
UNIONS = ("prompts", "topic", "student", "layers")  # keys whose value is one of several kinds, beside `teachers`
KINDS = (
    "local",
    "openai",
    "jsonl",
    "folder",
    "dataset",
    "column",
    "buckets",
    "teacher",
    "pretrained",
    "number",
    "list",
)


def _number(value: Any) -> Any:
    """PyYAML reads `1e-4` as a string and DVC reads it as a number: both mean the number."""
    if isinstance(value, str):
        try:
            return float(value)
        except ValueError:
            return value
    return value


Real = Annotated[float, BeforeValidator(_number), Field(allow_inf_nan=False)]
Positive = Annotated[Real, Field(gt=0)]
NotNegative = Annotated[Real, Field(ge=0)]
Share = Annotated[Real, Field(ge=0, le=1)]
Part = Annotated[Real, Field(gt=0, le=1)]
Count = Annotated[int, Field(ge=1)]
Name = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_-]*$")]
Text = Annotated[str, Field(min_length=1)]


class Section(BaseModel):
    """A part of params.yaml: every key is known, present and of its type."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class Runtime(Section):
    """What the bytes of a result depend on beside the data: see the README on reproducibility."""

    threads: Count
    dtype: Literal["auto", "bfloat16", "float32"]


class LocalTeacher(Section):
    """A transformers model in this process: a folder, a hub name, or a GGUF file.

    `package:NAME/FILE` names a file inside an installed Python package. `sha256` pins a GGUF file, and
    `revision` a hub name; null where they do not apply. `template` null is the model's own chat template;
    few_shot is for base models (distill/few_shot.py). `licence` is what the data card says of licence and terms.
    """

    name: Name
    kind: Literal["local"]
    model: Text
    revision: Text | None
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")] | None
    template: Literal["few_shot"] | None
    share: Share
    licence: Text | None


class Price(Section):
    """US dollars for a million tokens; of the Batch API where the teacher's mode is batch."""

    prompt: NotNegative
    completion: NotNegative


class ApiTeacher(Section):
    """An OpenAI-compatible chat endpoint. `api_key_env` names the environment variable with the key.

    `extra` are fields of a request that its server has beside OpenAI's. `on_missing` says what happens where it
    lacks what generate.needs names: fail, or degrade for rows that say so.
    """

    name: Name
    kind: Literal["openai"]
    model: Text
    base_url: Annotated[str, Field(pattern=r"^https?://[^@\s]+$")]
    api_key_env: Annotated[str, Field(pattern=r"^[A-Z_][A-Z0-9_]*$")]
    mode: Literal["live", "batch"]
    concurrency: Count
    requests_per_minute: Count | None
    tokens_per_minute: Count | None
    timeout_s: Positive
    max_retries: Annotated[int, Field(ge=0)]
    price: Price | None
    on_missing: Literal["fail", "degrade"]
    extra: dict[str, str | int | float | bool | None]
    share: Share
    licence: Text | None


Teacher = Annotated[LocalTeacher | ApiTeacher, Field(discriminator="kind")]


BUILDERS = ("csv", "json", "parquet", "text")  # of the `datasets` library, for local files
ColumnOrBuckets = Annotated[
    Annotated[Count, Tag("buckets")] | Annotated[Text, Tag("column")],
    Discriminator(lambda value: "column" if isinstance(value, str) else "buckets"),
]


class JsonlPrompts(Section):
    """A JSONL file with `id`, `topic` and `messages` in each line."""

    source: Literal["jsonl"]
    path: Text


class FolderPrompts(Section):
    """A folder of texts: each chunk of at most `chunk_words` words, in place of {text} in `template`, is a prompt."""

    source: Literal["folder"]
    path: Text
    pattern: Text
    chunk_words: Count
    template: Annotated[str, Field(pattern=r"\{text\}")]


class DatasetPrompts(Section):
    """A Hugging Face data set: a hub name at a pinned revision, or a builder (`BUILDERS`) for local files.

    `path` is what DVC watches: the files themselves; for a hub name, whose version is the revision, a note in git
    that says where the prompts come from. `topic` names a column, or is a number of hash buckets.
    """

    source: Literal["dataset"]
    path: Text
    name: Text
    config: Text | None
    split: Text
    column: Text
    topic: ColumnOrBuckets
    revision: Annotated[str, Field(pattern=r"^[0-9a-f]{40}$")] | None
    streaming: bool
    limit: Count | None

    @model_validator(mode="after")
    def _pinned(self) -> Self:
        if self.name in BUILDERS and self.revision is not None:
            raise ValueError(f"revision: must be null for local files ({self.name}); DVC versions them")
        if self.name not in BUILDERS and self.revision is None:
            raise ValueError(
                f"revision: must be the 40 digits of a commit of {self.name!r}, so that the prompts stay the same; "
                f"for local files name must be one of {BUILDERS}"
            )
        return self


Prompts = Annotated[JsonlPrompts | FolderPrompts | DatasetPrompts, Field(discriminator="source")]


class Shot(Section):
    """An example that is put before every prompt."""

    user: Text
    assistant: Text


class Grow(Section):
    """New prompts by a teacher (Self-Instruct): in each round `per_round` requests with examples of one topic each.

    A new prompt whose ROUGE-L with any other is `novelty` or more is refused.
    """

    teacher: Name
    rounds: Count
    per_round: Count
    examples_per_request: Count
    novelty: Part
    max_tokens: Count
    sampling_temperature: Annotated[Real, Field(ge=0, le=2)]
    top_p: Part


class Mixture(Section):
    """What becomes of several answers to one prompt; `clean` carries it out (distill/mixture.py)."""

    policy: Literal["all", "best", "vote", "fuse"]
    judge: Name | None
    aggregator: Name | None

    @model_validator(mode="after")
    def _complete(self) -> Self:
        if self.policy == "best" and self.judge is None:
            raise ValueError("judge: policy best needs one, the name of a teacher")
        if (self.policy == "fuse") != (self.aggregator is not None):
            raise ValueError(
                f"aggregator: policy fuse, and no other, needs one, the name of a teacher; given policy {self.policy} "
                f"and aggregator {self.aggregator}"
            )
        return self


class Generate(Section):
    """How the teachers are asked, and what."""

    prompts: Prompts
    system_prompt: Text | None
    few_shot: list[Shot]
    grow: Grow | None
    mixture: Mixture
    max_tokens: Count
    sampling_temperature: Annotated[Real, Field(ge=0, le=2)]
    top_p: Part
    samples: Count
    batch_size: Count
    needs: list[Literal["logprobs", "temperature", "seed", "usage"]]
    budget_usd: Positive | None

    @model_validator(mode="after")
    def _samples_differ(self) -> Self:
        if self.samples > 1 and self.sampling_temperature == 0:
            raise ValueError(
                f"samples: {self.samples} greedy answers are one and the same; set sampling_temperature above 0"
            )
        return self


class Clean(Section):
    """Which rows are dropped, and how the topics are split."""

    validation_topics: Part
    test_topics: Part
    drop_truncated: bool
    min_words: Count
    max_words: Count
    max_repetition: Share
    near_duplicate: Part
    minhash_permutations: Annotated[int, Field(ge=16)]
    contamination_ngram: Annotated[int, Field(ge=3)]
    refusals: list[Text]
    languages: Annotated[list[Text], Field(min_length=1)] | None
    evaluation_texts: list[Text]
    evaluation_tasks: list[Text]

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.min_words > self.max_words:
            raise ValueError(f"min_words ({self.min_words}) is larger than max_words ({self.max_words})")
        if self.validation_topics + self.test_topics >= 1:
            raise ValueError("validation_topics and test_topics leave no topic to train on")
        return self


class Targets(Section):
    """The teacher's stored probabilities for logit distillation."""

    teacher: Name
    top_k: Annotated[int, Field(ge=1, le=1024)]
    batch_tokens: Count


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
    min_effective_share: Part
    targets: Targets | None

    @model_validator(mode="after")
    def _ifd_has_a_model(self) -> Self:
        if self.confidence == "ifd" and self.targets is None:
            raise ValueError("confidence: ifd is measured with the teacher of weight.targets, but that is null")
        return self


LayerList = Annotated[list[Annotated[int, Field(ge=0)]], Field(min_length=1)]
Layers = Annotated[
    Annotated[Count, Tag("number")] | Annotated[LayerList, Tag("list")],
    Discriminator(lambda value: "list" if isinstance(value, list) else "number"),
]


class TeacherStudent(Section):
    """A student cut from the teacher: some of its layers, part of its vocabulary."""

    source: Literal["teacher"]
    teacher: Name
    layers: Layers
    vocabulary: Annotated[int, Field(ge=300)]

    @model_validator(mode="after")
    def _ascending(self) -> Self:
        if isinstance(self.layers, list) and self.layers != sorted(set(self.layers)):
            raise ValueError(f"layers: a list must name each layer once, in ascending order, given {self.layers}")
        return self


class PretrainedStudent(Section):
    """A student that exists: a folder or a hub name."""

    source: Literal["pretrained"]
    model: Text
    revision: Text | None


Loss = Literal["cross_entropy", "forward_kl", "reverse_kl", "jsd", "skew_kl"]


class Untrained(Section):
    """The student before training: there is nothing to choose."""


class Variant(Section):
    """One student's loss; `cross_entropy_share` of it is cross-entropy on the teacher's text, the rest `loss`."""

    loss: Loss
    cross_entropy_share: Share
    temperature: Positive
    beta: Annotated[Real, Field(gt=0, lt=1)]
    tail: Literal["bucket", "renormalise"]


class Schedule(Section):
    """The optimisation, the same for every variant."""

    epochs: Count
    batch_size: Count
    gradient_accumulation: Count
    learning_rate: Positive
    warmup_share: Share
    decay: Literal["linear", "cosine", "constant"]
    weight_decay: NotNegative
    max_grad_norm: Positive
    max_length: Annotated[int, Field(ge=16)]
    log_every: Count
    save_every: Count

    @model_validator(mode="after")
    def _saves_are_logged(self) -> Self:
        if self.save_every % self.log_every:
            raise ValueError(
                f"save_every ({self.save_every}) must be a multiple of log_every ({self.log_every}), so that a "
                "resumed run logs the same losses"
            )
        return self


class Train(Section):
    """The students: what they start from and how they are trained."""

    student: Annotated[TeacherStudent | PretrainedStudent, Field(discriminator="source")]
    schedule: Schedule
    init: Untrained
    sft: Variant
    distilled: Variant
    save_dtype: Literal["bfloat16", "float32"]

    @model_validator(mode="after")
    def _sft_is_sft(self) -> Self:
        if self.sft.loss != "cross_entropy":
            raise ValueError("sft.loss: must be cross_entropy; the other variant, distilled, takes any loss")
        return self


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


class Params(Section):
    """The whole of params.yaml."""

    seed: Annotated[int, Field(ge=0, lt=2**31)]
    runtime: Runtime
    teachers: Annotated[list[Teacher], Field(min_length=1)]
    generate: Generate
    clean: Clean
    weight: Weight
    train: Train
    evaluate: Evaluate
    plot: Plot

    @model_validator(mode="after")
    def _teachers_exist(self) -> Self:
        names = [teacher.name for teacher in self.teachers]
        if len(names) != len(set(names)):
            raise ValueError(f"teachers: two have the same name, given {names}")
        if not any(teacher.share for teacher in self.teachers):
            raise ValueError("teachers: the share of every one is 0, so that none answers the prompts")
        helpers = {"generate.mixture.judge": self.generate.mixture.judge}
        helpers["generate.mixture.aggregator"] = self.generate.mixture.aggregator
        if self.generate.grow is not None:
            helpers["generate.grow.teacher"] = self.generate.grow.teacher
        for key, helper in helpers.items():
            if helper is not None and helper not in names:
                raise ValueError(f"{key}: must be one of `teachers` ({names}), given {helper!r}")
        local = [teacher.name for teacher in self.teachers if teacher.kind == "local" and teacher.template is None]
        asked = {"evaluate.teacher": self.evaluate.teacher}
        if self.train.student.source == "teacher":
            asked["train.student.teacher"] = self.train.student.teacher
        if self.weight.targets is not None:
            asked["weight.targets.teacher"] = self.weight.targets.teacher
        for key, name in asked.items():
            if name not in local:
                raise ValueError(
                    f"{key}: must be a local teacher of `teachers` with its own chat template ({local}), given {name!r}"
                )
        if self.weight.targets is None and self.train.distilled.loss != "cross_entropy":
            raise ValueError(
                f"train.distilled.loss: {self.train.distilled.loss} needs stored targets, but weight.targets is null"
            )
        unpriced = [teacher.name for teacher in self.teachers if teacher.kind == "openai" and teacher.price is None]
        if self.generate.budget_usd is not None and unpriced:
            raise ValueError(
                f"generate.budget_usd: cannot be kept, since the price of {unpriced} is null; give prices or no budget"
            )
        parts = sum(teacher.share for teacher in self.teachers if teacher.share < 1)
        if parts > 1 + 1e-9:
            raise ValueError(f"teachers: shares below 1 divide the prompts and add up to {parts:g}, more than 1")
        return self


def check(value: Any) -> Params:
    """The typed params, or one UserError that lists every mistake with its dotted path."""
    if not isinstance(value, dict):
        raise UserError(f"{PATH} must be a mapping of sections, but is {type(value).__name__}.")
    try:
        return Params.model_validate(value)
    except ValidationError as error:
        lines = [_line(details) for details in error.errors(include_url=False)]
        shown = lines[:20] + ([f"  ... and {len(lines) - 20} more"] if len(lines) > 20 else [])
        raise UserError(
            f"{PATH} has {len(lines)} mistake{'s' * (len(lines) > 1)}:\n" + "\n".join(shown) + "\n"
            "Every key is explained in params.yaml as committed (`git diff params.yaml` shows your changes)."
        ) from None


def load() -> Params:
    """Reads params.yaml from the current folder and checks all of it."""
    try:
        value = yaml.safe_load(PATH.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"{PATH} is missing: run the stage from the root of the repository.") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"{PATH} is not YAML: {error}") from None
    return check(value)


def _line(details: Any) -> str:
    """`  train.schedule.epochs: input should be greater than or equal to 1 (given 0)`."""
    location = details["loc"]
    path = ".".join(str(part) for index, part in enumerate(location) if not _is_kind(location, index))
    message = details["msg"].removeprefix("Value error, ")
    if details["type"] == "missing":
        return f"  {path}: is missing"
    if details["type"] == "extra_forbidden":
        return f"  {path}: is not a known key"
    if details["type"] == "value_error":
        return f"  {path + ': ' if path else ''}{message}"
    given = repr(details["input"])
    return f"  {path}: {message[0].lower()}{message[1:]} (given {given if len(given) <= 60 else given[:57] + '...'})"


def _is_kind(location: tuple[int | str, ...], index: int) -> bool:
    """Whether this part of the path is the kind of a union, which pydantic adds: it is no key of the file."""
    return (
        index > 0
        and (isinstance(location[index - 1], int) or location[index - 1] in UNIONS)
        and location[index] in KINDS
    )
