"""How messages become token ids: the one place where teacher, student and evaluation agree on a prompt."""

from dataclasses import dataclass
from typing import Any

from distill.core.errors import UserError
from distill.modeling import few_shot

Messages = list[dict[str, str]]


@dataclass(frozen=True)
class Example:
    """A sample as token ids of one tokenizer. The response ends with the end-of-turn token if the teacher stopped."""

    id: str
    prompt: list[int]
    response: list[int]


def render(tokenizer: Any, messages: Messages) -> str:
    """The prompt as text, by the tokenizer's own chat template, ready for the assistant's answer.

    Raises UserError where the tokenizer has no chat template.
    """
    if not tokenizer.chat_template:
        raise UserError(
            f"the tokenizer of {tokenizer.name_or_path!r} has no chat template, so that messages cannot be "
            "rendered as it was trained to read them. Choose an instruct or chat model."
        )
    return tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)


def prompt_ids(tokenizer: Any, messages: Messages, max_tokens: int | None = None) -> list[int]:
    """The rendered prompt as ids, with at most the one BOS of the template. Of a longer one the end is kept."""
    ids = tokenizer(render(tokenizer, messages), add_special_tokens=False).input_ids
    return ids if max_tokens is None else ids[-max_tokens:]


def response_ids(tokenizer: Any, response: str, ended: bool) -> list[int]:
    """The response as ids, encoded apart from the prompt, with one end-of-turn token if the teacher ended it.

    A special token that the response spells out, such as `<|im_end|>` in an answer about templates, is text. A base
    model has its own spelling and end of an answer (distill/modeling/few_shot.py).
    """
    if few_shot.is_used(tokenizer):
        return few_shot.response_ids(tokenizer, response, ended)
    ids = tokenizer(response, add_special_tokens=False, split_special_tokens=True).input_ids
    return [*ids, end_of_turn(tokenizer)] if ended else ids


def end_of_turn(tokenizer: Any) -> int:
    """The id of the token that the chat template puts right after the assistant's text."""
    marker = "\N{SNOWMAN}"
    turns = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": marker}]
    text = tokenizer.apply_chat_template(turns, tokenize=False)
    after = tokenizer(text.rpartition(marker)[2].lstrip(), add_special_tokens=False).input_ids
    return after[0] if after else tokenizer.eos_token_id


def encode(tokenizer: Any, row: dict[str, Any], max_length: int | None = None) -> Example:
    """A row (`id`, `messages`, `response`, `finish_reason`) as ids.

    Where prompt and response are longer than `max_length`, the end of the response goes first (with it the
    end-of-turn token), then the beginning of the prompt.
    """
    response = response_ids(tokenizer, row["response"], row["finish_reason"] == "stop")
    if max_length is None:
        return Example(row["id"], prompt_ids(tokenizer, row["messages"]), response)
    response = response[: max_length - 1]
    return Example(row["id"], prompt_ids(tokenizer, row["messages"], max_length - len(response)), response)
