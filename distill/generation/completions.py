"""Requests to teachers and their completions."""

from dataclasses import dataclass
from typing import Any, Self, TypeGuard

from distill.modeling.templates import Messages

FINISH_REASONS = ("stop", "length", "content_filter")
TOKENS = ("prompt_tokens", "completion_tokens")
MAX_COUNT = 10**8  # tokens of one request: ten times the largest context there is
MAX_MESSAGE_CHARACTERS, MAX_CODE_CHARACTERS = 300, 60  # of a failure


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
        """The completion of a journal line. Lines from before there were class labels lack `label_log_probs`.

        Earlier versions stored impossible counts of tokens: they are unknown.
        """
        optional = "label_log_probs"
        fields = {name: row[name] for name in cls.__dataclass_fields__ if name != optional or name in row}
        return cls(**fields | {name: token_counts(row[name]) for name in ("usage", "billed")})


def token_counts(value: Any) -> dict[str, int] | None:
    """The prompt_tokens and completion_tokens of a mapping; None if they are not two possible counts."""
    if not isinstance(value, dict):
        return None
    counts = {key: value[key] for key in TOKENS if is_count(value.get(key))}
    return counts if len(counts) == len(TOKENS) else None


def is_count(value: Any) -> TypeGuard[int]:
    """Whether a value of JSON is a possible number of tokens: an integer, which `true` is not."""
    return type(value) is int and 0 <= value <= MAX_COUNT


def failed_completion(
    request: Request, kind: str, message: str, code: str | None = None, attempts: int = 1, usage: Any = None
) -> Completion:
    """The record of a failure. The next run sends its request again."""
    error = {
        "class": kind,
        "code": None if code is None else _text(code)[:MAX_CODE_CHARACTERS],
        "attempts": attempts,
        "message": _text(message)[:MAX_MESSAGE_CHARACTERS],
    }
    return Completion(request.id, "", "error", None, usage, error)


def _text(value: str) -> str:
    return value.encode(errors="replace").decode()  # a lone surrogate is no text
