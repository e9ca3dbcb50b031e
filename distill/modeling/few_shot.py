"""A base model as a teacher: it continues a list of questions and answers, and stops where the next would begin."""

from typing import Any

from distill.core.errors import UserError

STOP = "\n\n"
SHOTS = (
    ("What is the capital of France?", "The capital of France is Paris."),
    ("Why do people wear coats?", "A coat keeps the warmth of the body in and the wind and the rain out."),
    ("Complete the sentence: A good friend is", "A good friend is someone who listens and tells you the truth."),
)
# For `tokenizer.chat_template`; a blank line inside a message would end it, so that there is none.
TEMPLATE = (
    "{{ bos_token }}"
    "{% if messages[0]['role'] == 'system' %}{{ messages[0]['content'] | trim }}\n\n{% endif %}"
    + "".join(f"Question: {question}\nAnswer: {answer}{STOP}" for question, answer in SHOTS)
    + "{% for message in messages %}"
    "{% set text = message['content'].split('\n') | map('trim') | select | join('\n') %}"
    "{% if message['role'] == 'user' %}Question: {{ text }}\nAnswer:"
    "{% elif message['role'] == 'assistant' %} {{ text }}\n\n{% endif %}"
    "{% endfor %}"
)
LEAD = "Answer:"  # what a rendered prompt ends with


def is_used(tokenizer: Any) -> bool:
    """Whether the tokenizer has this template."""
    return tokenizer.chat_template == TEMPLATE


def response_ids(tokenizer: Any, response: str, ended: bool) -> list[int]:
    """A response as the template writes it, behind a space and without blank lines; `ended` adds `end_token`.

    Raises UserError where the tokenizer joins the end of the prompt with what follows.
    """
    text = "\n".join(line for line in map(str.strip, response.split("\n")) if line)
    before, ids = (
        tokenizer(part, add_special_tokens=False, split_special_tokens=True).input_ids
        for part in (LEAD, f"{LEAD} {text}")
    )
    if ids[: len(before)] != before:
        raise UserError(
            f"the tokenizer of {tokenizer.name_or_path!r} makes one token of the end of {LEAD!r} and what follows, so "
            "that an answer's tokens do not begin where the prompt ends. Take another teacher than this for few_shot."
        )
    return ids[len(before) :] + ([end_token(tokenizer)] if ended else [])


def end_token(tokenizer: Any) -> int:
    """The token that says that an answer is over: the first of the stop string.

    Where the stop string is several tokens, that is a line's end, which an answer of several lines has inside too.
    """
    return tokenizer(STOP, add_special_tokens=False).input_ids[0]


def end_tokens(tokenizer: Any, tokens: list[bytes]) -> list[int]:
    """All tokens with which an answer is over; `tokens` are the bytes of each id.

    They are `end_token`, the end of text, and those that begin with the stop string.
    """
    longer = [place for place, text in enumerate(tokens) if text.startswith(STOP.encode())]
    return sorted({end_token(tokenizer), tokenizer.eos_token_id, *longer})


def stop_token(tokenizer: Any) -> int | None:
    """The one token that is the stop string, if the vocabulary has it: at it decoding ends early."""
    ids = tokenizer(STOP, add_special_tokens=False).input_ids
    return ids[0] if len(ids) == 1 else None


def cut(tokenizer: Any, tokens: list[int]) -> tuple[int, str] | None:
    """How many of the tokens it takes until the answer is over (stop string or end of text), and its text before that.

    None where it is not over yet.
    """
    for count, token in enumerate(tokens, start=1):
        if token == tokenizer.eos_token_id:
            return count, tokenizer.decode(tokens[: count - 1], skip_special_tokens=False)
        text = tokenizer.decode(tokens[:count], skip_special_tokens=False)
        if STOP in text:
            return count, text.partition(STOP)[0]
    return None
