"""A base model as a teacher: it continues a list of questions and answers, and stops where the next would begin."""

from typing import Any

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
