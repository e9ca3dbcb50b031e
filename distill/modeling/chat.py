"""Messages and responses as token ids, the same for teacher, student and evaluation."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

from jinja2 import TemplateError

from distill.core.errors import UserError
from distill.core.files import Row
from distill.modeling import few_shot
from distill.modeling.encoding import mark_text, spans_after, text_ids

if TYPE_CHECKING:  # transformers takes seconds to import
    from transformers import PreTrainedModel, PreTrainedTokenizerFast

Messages = list[dict[str, str]]
_CONTEXTS: "WeakKeyDictionary[PreTrainedTokenizerFast, tuple[object, tuple[str, str]]]" = WeakKeyDictionary()
# what a template, a program of its own, can throw
THROWN = (TemplateError, TypeError, ValueError, ArithmeticError, LookupError, AttributeError, RuntimeError, MemoryError)
DATE = datetime(2024, 7, 26)  # what a template that prints today's date prints; Llama 3's own where it has no clock


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

    A template that prints today's date prints DATE, so that no result depends on the day. A special token that a
    message spells out is marked as text: encode the prompt by `encoding.text_ids`. Raises UserError for a tokenizer
    without a chat template.
    """
    if not tokenizer.chat_template:
        raise UserError(
            f"the tokenizer of {tokenizer.name_or_path!r} has no chat template, so that messages cannot be "
            "rendered as it was trained to read them. Choose an instruct or chat model."
        )
    messages = [
        {**turn, "content": mark_text(tokenizer, turn["content"], by_user=turn["role"] != "assistant")}
        for turn in messages
    ]
    return _apply(tokenizer, messages, add_generation_prompt=True)


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
    text = _apply(tokenizer, turns)
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
    prompt = _apply(tokenizer, [user], add_generation_prompt=True)
    whole = _apply(tokenizer, [user, {"role": "assistant", "content": answer}])
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


def _apply(tokenizer: "PreTrainedTokenizerFast", messages: Messages, add_generation_prompt: bool = False) -> str:
    """The messages by the chat template, on DATE. Raises UserError for whatever a template throws."""
    try:
        if "strftime_now" in tokenizer.get_chat_template():
            from transformers.utils.chat_template_utils import _compile_jinja_template  # the compiled one is kept

            _compile_jinja_template(tokenizer.get_chat_template()).globals["strftime_now"] = DATE.strftime
        return str(tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=add_generation_prompt))
    except THROWN as error:
        reason = (str(error).strip().splitlines() or [""])[0][:200]
        roles = ", ".join(str(turn.get("role")) for turn in messages)[:200]
        raise UserError(
            f"the chat template of {tokenizer.name_or_path!r} must render every conversation, got "
            f"{type(error).__name__}: {reason or 'no reason'} for one with the roles {roles}. Change the messages "
            "(generate.system_prompt null if it refuses system messages), or choose another model."
        ) from None


OWN_TEMPLATE = ChatFormat(_response_ids, end_of_turn, _finish, several_ends=False)
FEW_SHOT = ChatFormat(few_shot.response_ids, few_shot.stop_token, few_shot.finish, several_ends=True)
