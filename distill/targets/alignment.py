"""Alignment of two tokenizers without a common vocabulary: spans of equal bytes, and tokens with equal bytes.

Both tokenizers split a response into tokens that spell the same bytes. A span runs from one boundary that both have to
the next, so that it is as short as possible. Boundaries may fall between words or within a character of UTF-8. The end
of a turn has a span of its own: the two tokens differ in their text and mean the same. So every token from the first to
the end of turn is in a span (GOLD, Patiño et al. 2025, has such spans over decoded text, where half a character cannot
be told apart).
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate

import torch
from transformers import PreTrainedTokenizerFast
from transformers.convert_slow_tokenizer import bytes_to_unicode

from distill.core.errors import UserError
from distill.modeling import few_shot
from distill.modeling.chat import chat_format, end_of_turn, response_ids


@dataclass(frozen=True)
class TokenBytes:
    """The bytes that each token id of a tokenizer adds to a text."""

    tokens: list[bytes]  # by id; a special token spells its name
    special: frozenset[int]
    end: int  # the end-of-turn token
    prefix: bool  # whether a response's first token begins with a space that the text has not (SentencePiece, few_shot)
    ends: tuple[int, ...] = ()  # of a base model, all tokens that say what `end` says, itself among them


@dataclass(frozen=True)
class Span:
    """Tokens of both sides that spell the same bytes: start and end positions in the two responses."""

    teacher: tuple[int, int]
    student: tuple[int, int]


def token_bytes(tokenizer: PreTrainedTokenizerFast) -> TokenBytes:
    """The bytes of every token of a byte-level or SentencePiece-like tokenizer, and which of them end a response.

    Raises UserError for one of another kind, whose tokens do not spell the text that they came from.
    """
    spec = json.loads(tokenizer.backend_tokenizer.to_str())
    decoder = json.dumps(spec["decoder"])
    added = {token["id"]: token["content"].encode() for token in spec["added_tokens"]}
    if '"ByteLevel"' in decoder:
        byte_of = {character: bytes([byte]) for byte, character in bytes_to_unicode().items()}
        pieces = {
            number: [byte_of.get(c, c.encode()) for c in token] for token, number in tokenizer.get_vocab().items()
        }
    elif any(word in decoder for word in ('"ByteFallback"', '"Metaspace"')):
        pieces = {number: [_piece(token)] for token, number in tokenizer.get_vocab().items()}
    else:
        raise UserError(
            f"the tokenizer of {tokenizer.name_or_path!r} is neither byte-level nor SentencePiece-like, so that its "
            "tokens cannot be compared with another tokenizer's. Train with loss kind cross_entropy."
        )
    tokens = [b"".join(pieces.get(number, [])) for number in range(max(pieces) + 1)]
    for token, text in added.items():
        tokens[token] = text
    special = frozenset(token["id"] for token in spec["added_tokens"] if token["special"])
    if chat_format(tokenizer).several_ends:
        ends = few_shot.end_tokens(tokenizer, tokens)
        return TokenBytes(tokens, special, few_shot.end_token(tokenizer), True, tuple(ends))
    first = b"".join(tokens[number] for number in response_ids(tokenizer, "a", ended=False))
    return TokenBytes(tokens, special, end_of_turn(tokenizer), first == b" a")


def response_spans(
    teacher: TokenBytes, student: TokenBytes, teacher_ids: Sequence[int], student_ids: Sequence[int], ended: bool
) -> list[Span]:
    """The spans of a response, given as ids of both sides, of which the student's may be cut short.

    `ended` says that the teacher's ids end with its end-of-turn token. Where the two sides do not spell the same
    bytes (a tokenizer that normalises its text), the spans end before the first difference.
    """
    both_end = ended and len(student_ids) > 0 and student_ids[-1] == student.end
    texts = [_pieces(teacher, teacher_ids[: len(teacher_ids) - ended])]
    texts.append(_pieces(student, student_ids[: len(student_ids) - both_end]))
    agreed = _agreement(*(b"".join(pieces) for pieces in texts))
    ends = [{end: count for count, end in enumerate(accumulate(map(len, pieces)), 1)} for pieces in texts]
    result, last = [], (0, 0)
    for end in sorted(ends[0].keys() & ends[1].keys()):
        if 0 < end <= agreed:
            boundary = (ends[0][end], ends[1][end])
            result.append(Span((last[0], boundary[0]), (last[1], boundary[1])))
            last = boundary
    if both_end:
        result.append(Span((len(teacher_ids) - 1, len(teacher_ids)), (len(student_ids) - 1, len(student_ids))))
    return result


def shared_tokens(teacher: TokenBytes, student: TokenBytes, first: bool) -> torch.Tensor:
    """For each teacher id the student's id of the token that spells the same, or -1, [teacher vocabulary] long.

    Special tokens go with special tokens, the end of turn with the end of turn. Of several tokens that spell the same
    the last one counts, which is a piece and not a single byte. `first` is for the first token of a text, where one
    side may write a space that the other does not.
    """
    teacher_ids, student_ids = _by_bytes(teacher, first), _by_bytes(student, first)
    result = torch.full((len(teacher.tokens),), -1)
    for text, teacher_id in teacher_ids.items():
        result[teacher_id] = student_ids.get(text, -1)
    return result


def _by_bytes(side: TokenBytes, first: bool) -> dict[tuple[str, bytes], int]:
    result = {}
    for token, text in enumerate(side.tokens):
        if token == side.end:
            result["end of turn", b""] = token
        elif token in side.special:
            result["special", text] = token
        elif first and side.prefix:
            if text.startswith(b" "):
                result["text", text[1:]] = token
        elif text:
            result["text", text] = token
    return result


def _agreement(first: bytes, second: bytes) -> int:
    """The number of bytes that two texts have in common before the first difference."""
    pairs = zip(first, second, strict=False)
    return next((index for index, (a, b) in enumerate(pairs) if a != b), min(len(first), len(second)))


def _pieces(side: TokenBytes, ids: Sequence[int]) -> list[bytes]:
    """The bytes of each token, without the space that the tokenizer writes before a text."""
    pieces = [side.tokens[token] for token in ids]
    if pieces and side.prefix:
        pieces[0] = pieces[0].removeprefix(b" ")
    return pieces


def _piece(token: str) -> bytes:
    """A SentencePiece token as bytes: `▁` is a space, `<0xE2>` one byte."""
    if len(token) == 6 and token.startswith("<0x") and token.endswith(">"):
        return bytes([int(token[3:5], 16)])
    return token.replace("▁", " ").encode()
