"""The API key: checked before anything is sent, and hidden in everything that a server writes."""

import html
import re
from collections.abc import Mapping
from functools import cache

from distill.core.errors import UserError
from distill.params.teachers import ApiTeacher

HIDDEN = "***"
MAX_KEY_CHARACTERS = 4096
MIN_SECRET_CHARACTERS = 12  # shorter words, such as EMPTY, are given to servers that need no key: they stay readable
MAX_SHOWN_CHARACTERS = 300  # of a server's text in a message
BETWEEN = rb"[\x00-\x20]{0,4}"  # a server may wrap a long line


def api_key(teacher: ApiTeacher, environment: Mapping[str, str]) -> str:
    """The teacher's key. Raises UserError if it is missing or cannot stand in an HTTP header; it is in no message."""
    name = f"the environment variable {teacher.api_key_env}"
    key = environment.get(teacher.api_key_env)
    if not key:
        raise UserError(
            f"teacher {teacher.name!r} needs a key in {name}, which is not set. Set it (to any word for a server that "
            "needs none) and run again. Nothing was sent."
        )
    wrong = next((place for place, character in enumerate(key, 1) if not "!" <= character <= "~"), None)
    if wrong is not None or len(key) > MAX_KEY_CHARACTERS:
        what = f"{len(key)} characters" if wrong is None else f"{_kind(key[wrong - 1])} at place {wrong} of {len(key)}"
        raise UserError(
            f"{name} must hold the key of teacher {teacher.name!r} alone, at most {MAX_KEY_CHARACTERS:,} letters, "
            f"digits and punctuation marks of ASCII, got {what}. Set it again without spaces and line breaks. Nothing "
            "was sent."
        )
    return key


def hide_key(content: bytes, key: str) -> bytes:
    """The bytes of a server without the key, in whatever spelling: plain, repr, URL-, JSON- or HTML-escaped.

    Keys shorter than MIN_SECRET_CHARACTERS stay: to replace a common word would change responses.
    """
    return content if len(key) < MIN_SECRET_CHARACTERS else _spellings(key).sub(HIDDEN.encode(), content)


def shown(value: object, key: str, limit: int = MAX_SHOWN_CHARACTERS) -> str:
    """A value of a server as one line of a message: without the key and control characters, and not too long."""
    try:
        text = str(value)
    except RecursionError:
        return "too deeply nested to be shown"
    text = hide_key(text.encode(errors="replace"), key).decode(errors="replace").replace(key, HIDDEN)
    line = " ".join("".join(character if character.isprintable() else " " for character in text).split())
    return line if len(line) <= limit else f"{line[: limit - 3]}..."


@cache
def _spellings(key: str) -> re.Pattern[bytes]:
    """Matches the key where each character may be escaped in a way of its own."""
    return re.compile(BETWEEN.join(_spelling(ord(character)) for character in key), re.IGNORECASE)


def _spelling(code: int) -> bytes:
    character = re.escape(chr(code))
    plain = character if chr(code).isalnum() else rf"\\{{0,4}}{character}"
    named = re.escape(html.escape(chr(code)).removeprefix("&"))
    escaped = rf"\\{{1,4}}(?:u00{code:02x}|x{code:02x}|{code:03o})"
    return rf"(?:{plain}|{escaped}|%(?:25){{0,4}}{code:02x}|&(?:{named}|#x?0{{0,4}}(?:{code}|{code:x});))".encode()


def _kind(character: str) -> str:
    if character in "\r\n":
        return "a line break"
    return "a space" if character.isspace() else "a control character" if ord(character) < 128 else "another letter"
