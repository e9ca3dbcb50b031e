"""Texts as token ids: in the context that they stand in, with special tokens only where a template wrote them."""

import json
from functools import lru_cache
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

import regex
from tokenizers import Tokenizer

if TYPE_CHECKING:  # transformers takes seconds to import
    from transformers import PreTrainedTokenizerFast

# Noncharacters, which no text may contain: inside a special token that is text, before one that the template wrote.
TEXT_MARK, TEMPLATE_MARK = "\ufdd0", "\ufdd1"
Span = tuple[int, int]
_MARKED: "WeakKeyDictionary[PreTrainedTokenizerFast, tuple[tuple[str, ...], Tokenizer]]" = WeakKeyDictionary()


def mark_text(tokenizer: "PreTrainedTokenizerFast", text: str, by_user: bool = False) -> str:
    """The text with a mark in every special token that it spells out.

    A user's are also the other added tokens of the template, such as DeepSeek's `<\uff5cUser\uff5c>`. A response may
    have these: `<think>` opens a thought.
    """
    names = _template_names(tokenizer) if by_user else _special_names(tokenizer)
    return _pattern(names).sub(lambda match: f"{match[0][0]}{TEXT_MARK}{match[0][1:]}", text)


def text_ids(tokenizer: "PreTrainedTokenizerFast", text: str) -> list[int]:
    """The ids of a text without special tokens around it. A special token with a mark inside is plain text."""
    return text_spans(tokenizer, text)[0]


def text_spans(tokenizer: "PreTrainedTokenizerFast", text: str) -> tuple[list[int], list[Span]]:
    """The ids, and the first character and the end of each, counted without marks."""
    if TEXT_MARK not in text:
        encoded = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
        return encoded.input_ids, [tuple(span) for span in encoded.offset_mapping]
    marked = _pattern(_template_names(tokenizer)).sub(lambda match: TEMPLATE_MARK + match[0], text)
    plain = marked.replace(TEXT_MARK, "")
    result = _marked_tokenizer(tokenizer).encode(plain, add_special_tokens=False)
    before = [0]
    for character in plain:
        before.append(before[-1] + (character == TEMPLATE_MARK))
    return result.ids, [(start - before[start], end - before[end]) for start, end in result.offsets]


def spans_after(tokenizer: "PreTrainedTokenizerFast", before: str, text: str) -> tuple[list[int], list[Span]]:
    """The ids and spans of a text, special tokens in it as text, where it stands after `before`.

    Some tokenizers write a space before a text, but not after a line end. Where a token would reach over the
    beginning of the text, the text is encoded by itself, since a prompt ends there.
    """
    marked = mark_text(tokenizer, text)
    first = text_ids(tokenizer, before)
    ids, spans = text_spans(tokenizer, before + marked)
    start = len(before)
    if ids[: len(first)] != first or any(end > start for _, end in spans[: len(first)]):
        return text_spans(tokenizer, marked)
    return ids[len(first) :], [(max(0, first - start), end - start) for first, end in spans[len(first) :]]


def _special_names(tokenizer: "PreTrainedTokenizerFast") -> tuple[str, ...]:
    added = tokenizer.backend_tokenizer.get_added_tokens_decoder()
    return tuple(sorted(token.content for token in added.values() if token.special))


def _template_names(tokenizer: "PreTrainedTokenizerFast") -> tuple[str, ...]:
    added, template = tokenizer.backend_tokenizer.get_added_tokens_decoder(), str(tokenizer.chat_template)
    return tuple(
        sorted(
            token.content
            for token in added.values()
            if token.special or (token.content in template and not token.content.isspace())
        )
    )


@lru_cache(64)
def _pattern(names: tuple[str, ...]) -> "regex.Pattern[str]":
    return regex.compile("|".join(map(regex.escape, sorted(names, key=len, reverse=True))) or r"(?!)")


def _marked_tokenizer(tokenizer: "PreTrainedTokenizerFast") -> Tokenizer:
    """The same tokenizer with a mark before the name of each special token: a name without it is text."""
    wanted = _template_names(tokenizer)
    if tokenizer not in _MARKED or _MARKED[tokenizer][0] != wanted:
        spec = json.loads(tokenizer.backend_tokenizer.to_str())
        names = {name: TEMPLATE_MARK + name for name in wanted}
        for token in spec["added_tokens"]:
            if token["content"] in names:
                token |= {"content": names[token["content"]], "normalized": False}
        model = spec["model"]
        if isinstance(model["vocab"], dict):
            model["vocab"] = {names.get(name, name): number for name, number in model["vocab"].items()}
        else:
            model["vocab"] = [[names.get(name, name), score] for name, score in model["vocab"]]
        if model.get("unk_token") in names:
            model["unk_token"] = names[model["unk_token"]]
        spec |= {"post_processor": None, "truncation": None, "padding": None}
        result = Tokenizer.from_str(json.dumps(spec))
        for name, marked in names.items():
            assert result.token_to_id(marked) == tokenizer.convert_tokens_to_ids(name), name
        _MARKED[tokenizer] = wanted, result
    return _MARKED[tokenizer][1]
