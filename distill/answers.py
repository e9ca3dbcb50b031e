"""What every kind of teacher is asked and gives back."""

import hashlib
from dataclasses import dataclass
from typing import Any

FINISHED = ("stop", "length", "content_filter")


@dataclass(frozen=True)
class Request:
    """One sample of a prompt from one teacher; `seed` is its own."""

    id: str
    messages: list[dict[str, str]]
    seed: int


@dataclass(frozen=True)
class Sampling:
    """Every sampling parameter that a teacher is sent; servers and checkpoints have defaults of their own.

    `seed` is the run's: each request has its own, made from it.
    """

    max_tokens: int
    temperature: float
    top_p: float
    seed: int


@dataclass(frozen=True)
class Answer:
    """The answer to a request, or why there is none.

    `finish_reason` is stop, length, content_filter, other or error; `logprobs` are the chosen tokens' in
    nats; `usage` has prompt_tokens and completion_tokens; `error` has class and message.
    """

    id: str
    response: str
    finish_reason: str
    logprobs: list[float] | None
    usage: dict[str, int] | None
    error: dict[str, str] | None


def failed(request: Request, kind: str, message: str) -> Answer:
    """The answer that records a failure; it is asked again on the next run."""
    return Answer(request.id, "", "error", None, None, {"class": kind, "message": message[:300]})


def request_seed(seed: int, name: str) -> int:
    """A seed of 31 bits for one request: it depends on nothing but the run's seed and the request's name."""
    return int.from_bytes(hashlib.sha256(f"{seed}/{name}".encode()).digest()[:4], "big") >> 1


def from_row(row: dict[str, Any]) -> Answer:
    """The answer that `vars` of it gave."""
    return Answer(**{name: row[name] for name in Answer.__dataclass_fields__})
