"""One row of data/raw/responses.jsonl: `generate` writes it, `clean` reads it."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from distill.core.files import Row

Finite = Annotated[float, Field(allow_inf_nan=False)]
LABEL_FIELDS = ("label_log_probs", "label")  # only in rows whose response is a class label


class Message(BaseModel):
    """One turn of a conversation."""

    model_config = ConfigDict(extra="allow")

    role: str
    content: str


class Usage(BaseModel):
    """Tokens as the teacher counted them."""

    prompt_tokens: int
    completion_tokens: int


class Failure(BaseModel):
    """The reason why there is no response."""

    kind: str = Field(alias="class")
    message: str


class ResponseRow(BaseModel):
    """One response to one prompt from one teacher. Fields with a default may be missing in a file.

    `logprobs` are those of the chosen tokens and `entropies` of their distributions, in nats. `margins` are the best
    log-probability minus the second best. `label_log_probs` are normalized over all class labels, and `label` is
    the right one. `degraded` lists the capabilities that the teacher lacks.
    """

    id: str
    prompt_id: str
    topic: str
    teacher: str
    sample: Annotated[int, Field(ge=0)] = 0
    messages: Annotated[list[Message], Field(min_length=1)]
    response: str
    finish_reason: Literal["stop", "length", "error", "content_filter", "other"]
    logprobs: list[Finite] | None
    entropies: list[Finite] | None = None
    margins: list[Finite] | None = None
    usage: Usage | None
    degraded: list[str] = []
    error: Failure | None
    judge_score: Finite | None = None
    fused_from: list[str] = []
    label_log_probs: list[Finite] | None = None
    label: str | None = None

    def to_json(self) -> Row:
        """The JSON object of the row's line, without label fields that are null."""
        absent = {name for name in LABEL_FIELDS if getattr(self, name) is None}
        return self.model_dump(by_alias=True, exclude=absent)
