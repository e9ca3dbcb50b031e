"""Chat templates, programs of strangers: rendered on one date, within limits, or refused by one message."""

from collections.abc import Sequence
from datetime import datetime
from typing import TYPE_CHECKING

from jinja2 import TemplateError

from distill.core.errors import UserError
from distill.core.limited import run_limited
from distill.modeling import few_shot
from distill.modeling.encoding import mark_text

if TYPE_CHECKING:  # transformers takes seconds to import
    from transformers import PreTrainedTokenizerFast

Messages = list[dict[str, str]]
_TRIED: set[str] = set()  # templates that rendered in a process with limits
SECONDS, SECONDS_PER_PROMPT = 20.0, 0.05  # for a template to render prompts; usual ones take a thousandth
MAX_GROWTH = 10**6  # characters that a template may add to a prompt
# what a template, a program of its own, can throw
THROWN = (TemplateError, TypeError, ValueError, ArithmeticError, LookupError, AttributeError, RuntimeError, MemoryError)
DATE = datetime(2024, 7, 26)  # what a template that prints today's date prints; Llama 3's own where it has no clock


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
    return apply_template(tokenizer, messages, add_generation_prompt=True)


def require_renderable(tokenizer: "PreTrainedTokenizerFast", conversations: Sequence[Messages]) -> None:
    """Render all conversations in a process with limits.

    Raises UserError if the chat template throws, or takes too much time or memory, for one of them.
    """

    def render_all() -> None:
        for messages in conversations:
            length = len(render(tokenizer, messages))
            if length > MAX_GROWTH + 10 * sum(len(turn["content"]) for turn in messages):
                raise UserError(_refusal(tokenizer, messages, f"a prompt of {length} characters"))

    seconds = SECONDS + len(conversations) * SECONDS_PER_PROMPT
    if reason := run_limited(render_all, seconds):
        said = reason.startswith("the chat template")
        raise UserError(reason if said else _refusal(tokenizer, conversations[0], reason))


def apply_template(
    tokenizer: "PreTrainedTokenizerFast", messages: Messages, add_generation_prompt: bool = False
) -> str:
    """The messages by the chat template, on DATE. Raises UserError for whatever a template throws.

    A template is first tried in a process with limits, since it may loop for days or write gigabytes.
    """
    try:
        template = tokenizer.get_chat_template()
        if template not in _TRIED and template != few_shot.TEMPLATE:
            _TRIED.add(template)
            try:
                require_renderable(tokenizer, [messages])
            except UserError:
                _TRIED.remove(template)
                raise
        if "strftime_now" in template:
            from transformers.utils.chat_template_utils import _compile_jinja_template  # the compiled one is kept

            _compile_jinja_template(template).globals["strftime_now"] = DATE.strftime
        return str(tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=add_generation_prompt))
    except THROWN as error:
        reason = (str(error).strip().splitlines() or [""])[0][:200]
        raise UserError(_refusal(tokenizer, messages, f"{type(error).__name__}: {reason or 'no reason'}")) from None


def _refusal(tokenizer: "PreTrainedTokenizerFast", messages: Messages, reason: str) -> str:
    roles = ", ".join(str(turn.get("role")) for turn in messages)[:200]
    return (
        f"the chat template of {tokenizer.name_or_path!r} must render every conversation, got {reason} for one with "
        f"the roles {roles}. Change the messages (generate.system_prompt null if it refuses system messages), or "
        "choose another model."
    )
