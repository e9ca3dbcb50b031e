"""What is wrong with a response by itself, whatever the others are."""

from typing import Any

from distill.params import Clean
from distill.text import opens_with, repetition, words

Fault = tuple[str, str]  # reason, detail


def is_label(row: dict[str, Any]) -> bool:
    """Whether the response is one of a closed set of labels."""
    return "label_log_probs" in row


def quality(row: dict[str, Any], clean: Clean) -> Fault | None:
    """Why the response is bad by itself, or None. A label is as good as its set, whatever its length and words."""
    text, finish = row["response"], row["finish_reason"]
    if row["error"] is not None or finish == "error":
        return "failed", ": ".join((row["error"]["class"], row["error"]["message"])) if row["error"] else ""
    if finish == "content_filter":
        return "filtered", ""
    if is_label(row):
        return None
    count = len(words(text))
    if finish == "length" and clean.drop_truncated:
        return "truncated", f"after {count} words"
    if not text.strip():
        return "empty", ""
    for opening in clean.refusals:
        if opens_with(text, opening):
            return "refused", opening
    if count < clean.min_words:
        return "too_short", f"{count} words"
    if count > clean.max_words:
        return "too_long", f"{count} words"
    if (share := repetition(text)) > clean.max_repetition:
        return "repetitive", f"{share:.2f}"
    return None
