"""Requests to teachers and their completions."""

from dataclasses import dataclass
from typing import Any, Self

from distill.modeling.chat import Messages

FINISH_REASONS = ("stop", "length", "content_filter")
TOKENS = ("prompt_tokens", "completion_tokens")


@dataclass(frozen=True)
class Request:
    """One sample of a prompt from one teacher, with its own `seed`."""

    id: str
    messages: Messages
    seed: int


@dataclass(frozen=True)
class Completion:
    """The response to a request, or the reason why there is none.

    `finish_reason` is stop, length, content_filter, other or error. `logprobs` are those of the chosen tokens and
    `entropies` of their distributions, in nats; `margins` are the best log-probability minus the second best.
    `usage` has prompt_tokens and completion_tokens. `error` has class, code, attempts and message. `billed` are the
    tokens that an API charges for the last attempt, as far as is known; None for a local teacher. `label_log_probs`
    are those of all class labels, in nats and normalized over them, where the response is one of these.

    The journal stores these fields under their names.
    """

    id: str
    response: str
    finish_reason: str
    logprobs: list[float] | None
    usage: dict[str, int] | None
    error: dict[str, Any] | None
    entropies: list[float] | None = None
    margins: list[float] | None = None
    billed: dict[str, int] | None = None
    label_log_probs: list[float] | None = None

    @classmethod
    def from_json(cls, row: dict[str, Any]) -> Self:
        """The completion of a journal line. Lines from before there were class labels lack `label_log_probs`."""
        optional = "label_log_probs"
        return cls(**{name: row[name] for name in cls.__dataclass_fields__ if name != optional or name in row})


def failed_completion(
    request: Request, kind: str, message: str, code: str | None = None, attempts: int = 1, usage: Any = None
) -> Completion:
    """The record of a failure. The next run sends its request again."""
    error = {"class": kind, "code": code, "attempts": attempts, "message": message[:300]}
    return Completion(request.id, "", "error", None, usage, error)
