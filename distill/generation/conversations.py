"""Prompts out of what data sets hold: a text, messages with `role` and `content`, or turns with `from` and `value`."""

from typing import Any

from distill.core.errors import UserError
from distill.core.files import Row, value_hash
from distill.core.text import is_text
from distill.modeling.templates import Messages

ROLES = ("system", "user", "assistant")
SHARE_GPT_ROLES = {"system": "system", "human": "user", "gpt": "assistant"}  # by the value of `from`
BUCKETS = 100  # topics of the prompts of a JSONL file without topics
EXAMPLE = '{"prompt": "..."} or {"id": "bees/fact", "topic": "bees", "messages": [{"role": "user", "content": "..."}]}'


def read_messages(value: Any) -> tuple[Messages, str]:
    """The messages of a value up to the last of the user; or [] and the reason why there are none.

    An empty system message says nothing and is left out.
    """
    if isinstance(value, str):
        value = [{"role": "user", "content": value}]
    if not isinstance(value, list) or not all(isinstance(turn, dict) for turn in value):
        return [], "no text and no list of messages"
    messages = []
    for turn in value:
        role = turn.get("role") or SHARE_GPT_ROLES.get(str(turn.get("from")))
        content = turn.get("content") or turn.get("value") or ""
        if role not in ROLES:
            return [], f"a role that is none of {', '.join(ROLES)}"
        if not isinstance(content, str):
            return [], "a message whose content is no text"
        if not is_text(content):
            return [], "half a character (a lone surrogate)"
        if content.strip():
            messages.append({"role": role, "content": content.strip()})
        elif role != "system":
            return [], "an empty message"
    while messages and messages[-1]["role"] != "user":
        messages.pop()
    return messages, "" if messages else "no message of the user"


def prompt_of_row(row: Row) -> Row:
    """The prompt of a JSONL row: `prompt` or `messages`, whose last is the user's; `id` and `topic` may be missing.

    Then the id is a hash of the messages, and the topic one of BUCKETS by this hash. Raises ValueError with what is
    wrong.
    """
    for name in ("id", "topic", "label"):
        value = row.get(name, "none")
        if not isinstance(value, str) or not value.strip() or not is_text(value):
            raise ValueError(f"{name} must be a text or missing, got {ascii(value)[:60]}")
    if "messages" not in row and "prompt" not in row:
        raise ValueError(f"it must have prompt or messages, got the keys {', '.join(map(ascii, row))[:200] or 'none'}")
    value = row["messages"] if "messages" in row else row["prompt"]
    messages, reason = read_messages(value)
    if "messages" in row and isinstance(value, str):
        reason = "a text: name it prompt"
    if reason:
        raise ValueError(f"{'messages' if 'messages' in row else 'prompt'} must be a prompt, got {reason}")
    if isinstance(value, list):
        if value[-1].get("role", "user") != "user":
            raise ValueError("the last of messages must be the user's")
        if all({"role", "content"} <= turn.keys() and turn["content"].strip() for turn in value):
            messages = value  # as they are, with their spaces
    digest = value_hash(messages)[:16]
    missing = {"id": digest, "topic": f"bucket-{int(digest, 16) % BUCKETS}"}
    return missing | {key: value for key, value in row.items() if key != "prompt"} | {"messages": messages}


def not_a_prompt(where: str, reason: str) -> UserError:
    """The error for a row of a file."""
    return UserError(f"{where} is not a prompt: {reason}. Each line must be like {EXAMPLE}.")
