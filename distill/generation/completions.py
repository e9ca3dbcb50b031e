"""Requests to teachers and their completions."""

from dataclasses import dataclass
from typing import Any

FINISHED = ("stop", "length", "content_filter")
LABELLED = "label_log_probs"


@dataclass(frozen=True)
class Request:
    """One sample of a prompt from one teacher; `seed` is its own."""

    id: str
    messages: list[dict[str, str]]
    seed: int


@dataclass(frozen=True)
class Answer:
    """The answer to a request, or why there is none.

    `finish_reason` is stop, length, content_filter, other or error; `logprobs` are the chosen tokens' in
    nats; `entropies` are each token's in nats, `margins` the best log-probability minus the second best;
    `usage` has prompt_tokens and completion_tokens; `error` has class, code, attempts and message. `billed`
    are the tokens that an API charges for the last attempt, as far as is known; None for a local teacher.
    `label_log_probs` are those of all labels, in nats and normalised over them, where the answer is one of these.
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


def failed(
    request: Request, kind: str, message: str, code: str | None = None, attempts: int = 1, usage: Any = None
) -> Answer:
    """The answer that records a failure; it is asked again on the next run."""
    error = {"class": kind, "code": code, "attempts": attempts, "message": message[:300]}
    return Answer(request.id, "", "error", None, usage, error)


def from_row(row: dict[str, Any]) -> Answer:
    """The answer that `vars` of it gave; journals from before there were labels have no log-probabilities of them."""
    return Answer(**{name: row[name] for name in Answer.__dataclass_fields__ if name != LABELLED or name in row})
