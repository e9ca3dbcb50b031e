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
    nats; `entropies` are each token's in nats, `margins` the best log-probability minus the second best;
    `usage` has prompt_tokens and completion_tokens; `error` has class, code, attempts and message. `billed`
    are the tokens that an API charges for the last attempt, as far as is known; None for a local teacher.
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


def failed(
    request: Request, kind: str, message: str, code: str | None = None, attempts: int = 1, usage: Any = None
) -> Answer:
    """The answer that records a failure; it is asked again on the next run."""
    error = {"class": kind, "code": code, "attempts": attempts, "message": message[:300]}
    return Answer(request.id, "", "error", None, usage, error)


def request_seed(seed: int, name: str) -> int:
    """A seed of 31 bits for one request: it depends on nothing but the run's seed and the request's name."""
    return int.from_bytes(hashlib.sha256(f"{seed}/{name}".encode()).digest()[:4], "big") >> 1


def from_row(row: dict[str, Any]) -> Answer:
    """The answer that `vars` of it gave."""
    return Answer(**{name: row[name] for name in Answer.__dataclass_fields__})
