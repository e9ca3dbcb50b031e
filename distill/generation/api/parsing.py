"""Completions in the replies of an endpoint: chat completions, and lines of a batch's result files."""

import json
import math
from dataclasses import replace
from typing import Any

from distill.generation.completions import FINISH_REASONS, TOKENS, Completion, Request, failed_completion

UNKNOWN_LOG_PROB = -9000.0  # servers write -9999 for a token outside their best ones: not a log-probability
EXPIRED = "batch_expired"


def from_content(request: Request, content: bytes) -> Completion:
    """The completion in the body of a server's 200; a failed one if it is no chat completion."""
    try:
        return from_chat_completion(request, json.loads(content))
    except ValueError:
        message = f"not JSON: {content[:100].decode(errors='replace')!r}"
        return failed_completion(request, "invalid_response", message)


def from_chat_completion(request: Request, chat: Any) -> Completion:
    """The completion in the JSON of a chat completion; a failed one if it is none."""
    usage = _usage(chat)
    try:
        choice = chat["choices"][0]
        content, finish, scored = choice["message"].get("content"), choice.get("finish_reason"), choice.get("logprobs")
        tokens = (scored or {}).get("content") or []
    except (LookupError, TypeError, AttributeError):
        reason = chat.get("error") if isinstance(chat, dict) else chat
        message = f"no choices in the response; error: {reason}"
        return failed_completion(request, "invalid_response", message, usage=usage)
    if content is None and finish == "content_filter":
        content = ""
    if not isinstance(content, str):
        message = f"the message has no content (finish_reason {finish!r})"
        return failed_completion(request, "empty", message, usage=usage)
    return Completion(
        id=request.id,
        response=content.encode(errors="replace").decode(),  # a lone surrogate is no text
        finish_reason=finish if finish in FINISH_REASONS else "other",
        logprobs=_rounded([_log_prob(token) for token in tokens]),
        usage=usage,
        error=None,
        margins=_rounded([_margin(token) for token in tokens]),
    )


def from_result_line(line: bytes, key: str) -> Completion | None:
    """The completion in a line of a batch's result file; None for an expired request or an invalid line.

    A line with an error is billed no tokens. `billed` of any other line is None. `key` is removed from messages.
    """
    try:
        value = json.loads(line)
        request = Request(value["custom_id"], [], 0)
        reply, error = value.get("response") or {}, value.get("error") or {}
        status, content = reply.get("status_code"), reply.get("body")
        if status == 200:
            return from_chat_completion(request, content)
        reason = error or (content or {}).get("error") or content
        if error.get("code") == EXPIRED:
            return None
    except (ValueError, LookupError, TypeError, AttributeError):
        return None
    kind = f"http_{status}" if status else "batch"
    message = str(reason).replace(key, "***")
    failure = failed_completion(request, kind, message, error.get("code"))
    return replace(failure, billed=dict.fromkeys(TOKENS, 0))


def _usage(chat: Any) -> dict[str, int] | None:
    usage = chat.get("usage") if isinstance(chat, dict) else None
    if not isinstance(usage, dict) or not all(isinstance(usage.get(key), int) for key in TOKENS):
        return None
    return {key: usage[key] for key in TOKENS}


def _rounded(values: list[float | None]) -> list[float] | None:
    """The values; None if there are none or one is unknown."""
    known = [round(value, 4) for value in values if value is not None]
    return known if known and len(known) == len(values) else None


def _log_prob(token: Any) -> float | None:
    value = token.get("logprob") if isinstance(token, dict) else None
    if isinstance(value, int | float) and math.isfinite(value) and value > UNKNOWN_LOG_PROB:
        return float(value)
    return None


def _margin(token: Any) -> float | None:
    """Log-probability of the best token minus that of the second best, in nats."""
    top = token.get("top_logprobs") if isinstance(token, dict) else None
    best = sorted((value for value in map(_log_prob, top or []) if value is not None), reverse=True)
    return best[0] - best[1] if len(best) > 1 else None
