"""Messages and responses as token ids, the same for teacher, student and evaluation."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from distill.core.errors import UserError
from distill.core.files import Row
from distill.modeling import few_shot

if TYPE_CHECKING:  # transformers takes seconds to import
    from transformers import PreTrainedTokenizerFast

Messages = list[dict[str, str]]


@dataclass(frozen=True)
class Example:
    """A sample as token ids of one tokenizer. The response ends with the end-of-turn token if the teacher stopped."""

    id: str
    prompt: list[int]
    response: list[int]


@dataclass(frozen=True)
class ChatFormat:
    """The form of a response after its prompt, and its end.

    `response_ids(tokenizer, response, ended)` has the ids of a response. Decoding stops at `stop_id(tokenizer)`.
    `finish(tokenizer, ids)` has the number of ids that a finished response takes and its text, None for an unfinished
    one. With `several_ends` different tokens end a response, and it begins with a space that its text lacks.
    """

    response_ids: "Callable[[PreTrainedTokenizerFast, str, bool], list[int]]"
    stop_id: "Callable[[PreTrainedTokenizerFast], int]"
    finish: "Callable[[PreTrainedTokenizerFast, list[int]], tuple[int, str] | None]"
    several_ends: bool


def chat_format(tokenizer: "PreTrainedTokenizerFast") -> ChatFormat:
    """The format of the tokenizer's chat template: few-shot for a base model, otherwise its own."""
    return FEW_SHOT if tokenizer.chat_template == few_shot.TEMPLATE else OWN_TEMPLATE


def render(tokenizer: "PreTrainedTokenizerFast", messages: Messages) -> str:
    """The prompt as text, by the tokenizer's own chat template, ready for the assistant's response.

    Raises UserError for a tokenizer without a chat template.
    """
    if not tokenizer.chat_template:
        raise UserError(
            f"the tokenizer of {tokenizer.name_or_path!r} has no chat template, so that messages cannot be "
            "rendered as it was trained to read them. Choose an instruct or chat model."
        )
    return str(tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True))


def prompt_ids(tokenizer: "PreTrainedTokenizerFast", messages: Messages, max_tokens: int | None = None) -> list[int]:
    """The rendered prompt as ids, with at most the one BOS of the template. Of a longer one the end is kept."""
    ids = tokenizer(render(tokenizer, messages), add_special_tokens=False).input_ids
    return ids if max_tokens is None else ids[-max_tokens:]


def response_ids(tokenizer: "PreTrainedTokenizerFast", response: str, ended: bool) -> list[int]:
    """The response as ids, encoded apart from the prompt, with one end-of-turn token if the teacher ended it.

    A special token that the response spells out, such as `<|im_end|>` in a response about templates, is text.
    """
    return chat_format(tokenizer).response_ids(tokenizer, response, ended)


def end_of_turn(tokenizer: "PreTrainedTokenizerFast") -> int:
    """The id of the token that the chat template puts right after the assistant's text."""
    marker = "\N{SNOWMAN}"
    turns = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": marker}]
    text = str(tokenizer.apply_chat_template(turns, tokenize=False))
    after = tokenizer(text.rpartition(marker)[2].lstrip(), add_special_tokens=False).input_ids
    return after[0] if after else tokenizer.eos_token_id


def encode(tokenizer: "PreTrainedTokenizerFast", row: Row, max_length: int | None = None) -> Example:
    """A row (`id`, `messages`, `response`, `finish_reason`) as ids.

    Where prompt and response are longer than `max_length`, the end of the response goes first (with it the
    end-of-turn token), then the beginning of the prompt.
    """
    response = response_ids(tokenizer, row["response"], row["finish_reason"] == "stop")
    if max_length is None:
        return Example(row["id"], prompt_ids(tokenizer, row["messages"]), response)
    response = response[: max_length - 1]
    return Example(row["id"], prompt_ids(tokenizer, row["messages"], max_length - len(response)), response)


def _response_ids(tokenizer: "PreTrainedTokenizerFast", response: str, ended: bool) -> list[int]:
    ids = tokenizer(response, add_special_tokens=False, split_special_tokens=True).input_ids
    return [*ids, end_of_turn(tokenizer)] if ended else ids


def _finish(tokenizer: "PreTrainedTokenizerFast", ids: list[int]) -> tuple[int, str] | None:
    if ids[-1] != end_of_turn(tokenizer):
        return None
    return len(ids), str(tokenizer.decode(ids[:-1], skip_special_tokens=False))


OWN_TEMPLATE = ChatFormat(_response_ids, end_of_turn, _finish, several_ends=False)
FEW_SHOT = ChatFormat(few_shot.response_ids, few_shot.stop_token, few_shot.finish, several_ends=True)
