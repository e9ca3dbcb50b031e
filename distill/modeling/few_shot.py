"""Few-shot prompts for a base model, which continues a list of questions and answers."""

from typing import TYPE_CHECKING

from distill.core.errors import UserError

if TYPE_CHECKING:  # transformers takes seconds to import
    from transformers import PreTrainedTokenizerFast

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


def response_ids(tokenizer: "PreTrainedTokenizerFast", response: str, ended: bool) -> list[int]:
    """A response in the form of the template: after a space, without blank lines; `ended` adds `end_token`.

    Raises UserError for a tokenizer that merges the end of the prompt with the response.
    """
    text = "\n".join(line for line in map(str.strip, response.split("\n")) if line)
    before, ids = (
        tokenizer(part, add_special_tokens=False, split_special_tokens=True).input_ids
        for part in (LEAD, f"{LEAD} {text}")
    )
    if ids[: len(before)] != before:
        raise UserError(
            f"the tokenizer of {tokenizer.name_or_path!r} makes one token of the end of {LEAD!r} and the "
            "response, so that the response does not begin where the prompt ends. Choose another teacher for few_shot."
        )
    return ids[len(before) :] + ([end_token(tokenizer)] if ended else [])


def end_token(tokenizer: "PreTrainedTokenizerFast") -> int:
    """The token that ends a response: the first of the stop string.

    If the stop string is several tokens, it is a line end, which a response of several lines also contains.
    """
    return tokenizer(STOP, add_special_tokens=False).input_ids[0]


def end_tokens(tokenizer: "PreTrainedTokenizerFast", tokens: list[bytes]) -> list[int]:
    """All tokens that end a response; `tokens` are the bytes of each id.

    They are `end_token`, the end of text, and those that begin with the stop string.
    """
    longer = [token for token, text in enumerate(tokens) if text.startswith(STOP.encode())]
    return sorted({end_token(tokenizer), tokenizer.eos_token_id, *longer})


def stop_token(tokenizer: "PreTrainedTokenizerFast") -> int:
    """The token at which decoding stops: the stop string if it is one token, otherwise the end of text."""
    ids = tokenizer(STOP, add_special_tokens=False).input_ids
    return ids[0] if len(ids) == 1 else tokenizer.eos_token_id


def finish(tokenizer: "PreTrainedTokenizerFast", tokens: list[int]) -> tuple[int, str] | None:
    """The number of tokens up to the stop string or the end of text, and the text before it; None without either."""
    for count, token in enumerate(tokens, start=1):
        if token == tokenizer.eos_token_id:
            return count, str(tokenizer.decode(tokens[: count - 1], skip_special_tokens=False))
        text = str(tokenizer.decode(tokens[:count], skip_special_tokens=False))
        if STOP in text:
            return count, text.partition(STOP)[0]
    return None
