"""Completions in the replies of an endpoint: chat completions, and lines of a batch's result files."""

import json
from dataclasses import replace
from typing import Any

from distill.generation.api.secrets import shown
from distill.generation.api.thinking import response_start
from distill.generation.completions import (
    TOKENS,
    Completion,
    Request,
    failed_completion,
    is_count,
    token_counts,
)

UNKNOWN_LOG_PROB = -9000.0  # servers write -9999 for a token outside their best ones: not a log-probability
MAX_ROUNDING = 0.01  # above 0, of a log-probability computed in half precision
EXPIRED = "batch_expired"
# servers other than OpenAI's: TGI, Together, Gemini, Mistral, Cohere, vLLM, SGLang, OpenRouter, DeepSeek, Zhipu
FINISH_REASONS = {
    "stop": ("stop", "eos", "eos_token", "stop_sequence", "stop_token", "end_turn", "end", "complete", "completed"),
    "length": ("length", "max_tokens", "max_length", "model_length", "max_output_tokens", "token_limit"),
    "content_filter": (
        "content_filter",
        "safety",
        "recitation",
        "blocklist",
        "prohibited_content",
        "spii",
        "sensitive",
    ),
    "error": ("error", "error_toxic", "abort", "network_error", "insufficient_system_resource"),
}
FINISH_REASON_OF = {name: reason for reason, names in FINISH_REASONS.items() for name in names}


def from_content(request: Request, content: bytes, max_tokens: int, key: str) -> Completion:
    """The completion in the body of a server's 200; a failed one if it is no chat completion."""
    try:
        return from_chat_completion(request, json.loads(content.decode()), max_tokens, key)
    except (ValueError, RecursionError) as error:
        reason = "is too deeply nested" if isinstance(error, RecursionError) else "is not JSON"
        return failed_completion(request, "invalid_response", f"the reply {reason}: {shown(_start(content), key, 120)}")


def from_chat_completion(request: Request, chat: Any, max_tokens: int, key: str) -> Completion:
    """The completion in the JSON of a chat completion; a failed one if it is none."""
    usage = token_usage(chat)
    choices = chat.get("choices") if isinstance(chat, dict) else None
    choice = choices[0] if isinstance(choices, list) and choices else None
    error = next((part["error"] for part in (choice, chat) if isinstance(part, dict) and part.get("error")), None)
    if error is not None:
        code = error.get("code") if isinstance(error, dict) else None
        is_status = is_count(code) and 400 <= code <= 599
        kind = f"http_{code}" if is_status else "invalid_response" if choice is None else "server_error"
        return failed_completion(request, kind, error_text(error, key), None, usage=usage)
    message = choice.get("message") if isinstance(choice, dict) else None
    if not isinstance(choice, dict) or not isinstance(message, dict):
        return failed_completion(
            request, "invalid_response", f"no choices in the reply: {shown(chat, key)}", usage=usage
        )
    finish = finish_reason(choice.get("finish_reason"), usage, max_tokens)
    if finish == "error":
        return failed_completion(
            request, "server_error", f"finish_reason {shown(choice['finish_reason'], key)}", usage=usage
        )
    text = message_text(message.get("content"))
    if text is None and finish == "content_filter":
        text = ""
    start = response_start(text or "")
    response = (text or "")[start:]
    if text is None or (not response.strip() and (start or finish in ("length", "other"))):
        reason = (
            f"no text within {max_tokens} tokens (finish_reason {finish!r}). A model that thinks first needs more "
            "tokens, or its thinking switched off by a field of extra_body"
        )
        return failed_completion(request, "empty", reason, usage=usage)
    tokens = response_tokens(choice.get("logprobs"), text, start)
    return Completion(
        id=request.id,
        response=response.encode(errors="replace").decode(),  # a lone surrogate is no text
        finish_reason=finish,
        logprobs=_rounded([_log_prob(token) for token in tokens]),
        usage=usage,
        error=None,
        margins=_rounded([_margin(token) for token in tokens]),
    )


def from_result_line(line: bytes, max_tokens: int, key: str) -> Completion | None:
    """The completion in a line of a batch's result file; None for an expired request or an invalid line.

    A line with an error is billed no tokens. `billed` of any other line is None.
    """
    try:
        value = json.loads(line.decode())
        request = Request(value["custom_id"], [], 0)
        reply, error = value.get("response") or {}, value.get("error") or {}
        status, content = reply.get("status_code"), reply.get("body")
        if not isinstance(request.id, str):
            return None
        if status == 200:
            return from_chat_completion(request, content, max_tokens, key)
        reason = error or (content or {}).get("error") or content
        code = error.get("code")
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
        return None
    if code == EXPIRED:
        return None
    kind = f"http_{status}" if is_count(status) and 100 <= status <= 599 else "batch"
    failure = failed_completion(request, kind, error_text(reason, key), None if code is None else shown(code, key))
    return replace(failure, billed=dict.fromkeys(TOKENS, 0))


def error_text(error: Any, key: str) -> str:
    """What a server says in an error: its message if it has one, else all of it."""
    message = error.get("message") if isinstance(error, dict) else None
    return shown(message if isinstance(message, str) and message.strip() else error, key)


def finish_reason(value: Any, usage: dict[str, int] | None, max_tokens: int) -> str:
    """Stop, length, content_filter, error or other, for what a server writes.

    Without a known reason the tokens used tell: as many as allowed are a truncated response; fewer are a whole one if
    the server gives no reason at all.
    """
    known = FINISH_REASON_OF.get(value.lower()) if isinstance(value, str) else None
    if known is not None:
        return known
    if usage is not None and usage["completion_tokens"] >= max_tokens:
        return "length"
    return "stop" if value is None and usage is not None else "other"


def message_text(content: Any) -> str | None:
    """The text of a message: a string, or the texts in a list of parts, which may include thinking. None: no text."""
    if isinstance(content, list):
        texts = [part.get("text") for part in content if isinstance(part, dict) and part.get("type") == "text"]
        return "".join(text for text in texts if isinstance(text, str)) if texts else None
    return content if isinstance(content, str) else None


def response_tokens(scored: Any, text: str, start: int) -> list[Any]:
    """The scored tokens of the response, which starts at that place of the text; none if they cannot be told apart."""
    tokens = scored.get("content") if isinstance(scored, dict) else None
    if not isinstance(tokens, list) or not start:
        return tokens if isinstance(tokens, list) else []
    place, result = 0, []
    for token in tokens:
        word = token.get("token") if isinstance(token, dict) else None
        if not isinstance(word, str) or not text.startswith(word, place):
            return []
        if place >= start:
            result.append(token)
        place += len(word)
    return result if place >= len(text) else []


def token_usage(chat: Any) -> dict[str, int] | None:
    """The tokens that a reply reports; None if it reports no possible numbers.

    Some servers (xAI, Gemini) count thinking in the total only; it is billed like the response.
    """
    reported = chat.get("usage") if isinstance(chat, dict) else None
    counts = token_counts(reported)
    if counts is None or not isinstance(reported, dict):
        return None
    total = reported.get("total_tokens")
    if is_count(total):
        counts["completion_tokens"] = max(counts["completion_tokens"], total - counts["prompt_tokens"])
    return counts


def _start(content: bytes) -> str:
    return content[:400].decode(errors="replace")


def _rounded(values: list[float | None]) -> list[float] | None:
    """The values; None if there are none or one is unknown."""
    known = [round(value, 4) for value in values if value is not None]
    return known if known and len(known) == len(values) else None


def _log_prob(token: Any) -> float | None:
    """The log-probability in nats; None for what is none: of another type, infinite or positive."""
    value = token.get("logprob") if isinstance(token, dict) else None
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return min(float(value), 0.0) if UNKNOWN_LOG_PROB < value <= MAX_ROUNDING else None


def _margin(token: Any) -> float | None:
    """Log-probability of the best token minus that of the second best, in nats."""
    top = token.get("top_logprobs") if isinstance(token, dict) else None
    values = [_log_prob(entry) for entry in top] if isinstance(top, list) else []
    best = sorted((value for value in values if value is not None), reverse=True)
    return best[0] - best[1] if len(best) > 1 else None
