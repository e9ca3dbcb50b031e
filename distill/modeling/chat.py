"""Messages and responses as token ids, the same for teacher, student and evaluation."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

from distill.core.files import Row
from distill.modeling import few_shot
from distill.modeling.encoding import spans_after, text_ids
from distill.modeling.templates import Messages, apply_template, render

if TYPE_CHECKING:  # transformers takes seconds to import
    from transformers import PreTrainedModel, PreTrainedTokenizerFast

_CONTEXTS: "WeakKeyDictionary[PreTrainedTokenizerFast, tuple[object, tuple[str, str]]]" = WeakKeyDictionary()


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


def prompt_ids(tokenizer: "PreTrainedTokenizerFast", messages: Messages, max_tokens: int | None = None) -> list[int]:
    """The rendered prompt as ids, with at most the one BOS of the template. Of a longer one the end is kept."""
    ids = text_ids(tokenizer, render(tokenizer, messages))
    return ids if max_tokens is None else ids[-max_tokens:]


def response_ids(tokenizer: "PreTrainedTokenizerFast", response: str, ended: bool) -> list[int]:
    """The response as ids, as they stand in the conversation, with one end-of-turn token if the teacher ended it.

    A special token that the response spells out, such as `<|im_end|>` in a response about templates, is text.
    """
    return chat_format(tokenizer).response_ids(tokenizer, response, ended)


def end_of_turn(tokenizer: "PreTrainedTokenizerFast") -> int:
    """The id of the token that the chat template puts right after the assistant's text."""
    marker = "\N{SNOWMAN}"
    turns = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": marker}]
    text = apply_template(tokenizer, turns)
    after = tokenizer(text.rpartition(marker)[2].lstrip(), add_special_tokens=False).input_ids
    return after[0] if after else tokenizer.eos_token_id


def response_spans(tokenizer: "PreTrainedTokenizerFast", response: str) -> tuple[list[int], list[tuple[int, int]]]:
    """The ids of a response after the prompt's end, without an end of turn, and the characters of each."""
    before, space = response_context(tokenizer)
    ids, spans = spans_after(tokenizer, before, space + response)
    return ids, [(max(0, start - len(space)), max(0, end - len(space))) for start, end in spans]


def response_context(tokenizer: "PreTrainedTokenizerFast") -> tuple[str, str]:
    """What stands before a response: the end of every prompt, and the spaces that the template writes after it."""
    template, context = _CONTEXTS.get(tokenizer, (None, ("", "")))
    if template is None or template != tokenizer.chat_template:
        context = _response_context(tokenizer)
        _CONTEXTS[tokenizer] = tokenizer.chat_template, context
    return context


def _response_context(tokenizer: "PreTrainedTokenizerFast") -> tuple[str, str]:
    question, answer = "\N{SNOWMAN}", "\N{UMBRELLA}"
    user = {"role": "user", "content": question}
    prompt = apply_template(tokenizer, [user], add_generation_prompt=True)
    whole = apply_template(tokenizer, [user, {"role": "assistant", "content": answer}])
    space = whole.removeprefix(prompt).partition(answer)[0] if whole.startswith(prompt) else ""
    return prompt.rpartition(question)[2], space if space.isspace() else ""


def stop_ids(tokenizer: "PreTrainedTokenizerFast", model: "PreTrainedModel") -> list[int]:
    """The ids at which decoding stops: the format's, then those that the model's generation_config adds to it."""
    chat = chat_format(tokenizer)
    ends = None if chat.several_ends else getattr(model.generation_config, "eos_token_id", None)
    own = [ends] if isinstance(ends, int) else list(ends or [])
    return list(dict.fromkeys([chat.stop_id(tokenizer), *own]))


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
    ids = response_spans(tokenizer, response)[0] if response else []
    return [*ids, end_of_turn(tokenizer)] if ended else ids


def _finish(tokenizer: "PreTrainedTokenizerFast", ids: list[int]) -> tuple[int, str] | None:
    if ids[-1] != end_of_turn(tokenizer):
        return None
    return len(ids), str(tokenizer.decode(ids[:-1], skip_special_tokens=False))


OWN_TEMPLATE = ChatFormat(_response_ids, end_of_turn, _finish, several_ends=False)
FEW_SHOT = ChatFormat(few_shot.response_ids, few_shot.stop_token, few_shot.finish, several_ends=True)
