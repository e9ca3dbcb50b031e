"""Blocks of a report or a card: sections, tables, figures and numbers, before they become markdown or HTML."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import regex

MAX_CHARACTERS = 600  # of a text that is shown
# Characters that nobody sees: controls, directions, widths of zero, tags. Some spell a text where they stand: a
# variation selector after its sign, a joiner inside an emoji or a word of a script that joins letters, and a zero-width
# space between words of a script without spaces.
HIDDEN = regex.compile(
    r"[\p{Cc}\p{Cs}\p{Zl}\p{Zp}\p{Cf}\p{Default_Ignorable_Code_Point}"
    r"--[\t\u200b\p{Join_Control}\p{Variation_Selector}\p{Prepended_Concatenation_Mark}]]"
    r"|(?<![[\p{L}--[\p{Latin}\p{Greek}\p{Cyrillic}\p{Han}]]\p{M}\p{Extended_Pictographic}\p{Emoji_Modifier}])"
    r"\p{Join_Control}"
    r"|(?<![[\p{Emoji}\p{Ideographic}\p{Mongolian}]--\p{Join_Control}])\p{Variation_Selector}"
    r"|(?<![\p{Line_Break=SA}])\u200b",
    regex.VERSION1,
)


class Data(str):
    """A text from data or params. It is shown as it is and never becomes markup."""


@dataclass(frozen=True)
class Table:
    """Rows below a header.

    `align` has l or r for each column. If it is empty, the first column is aligned left and the others right.
    """

    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    align: str = ""

    @property
    def sides(self) -> str:
        """l or r for each column."""
        return self.align or "l" + "r" * (len(self.header) - 1)


class Scorecard(Table):
    """A table of goals: name, value, condition, met or not met, meaning. HTML shows each row as a tile."""


@dataclass(frozen=True)
class Bullets:
    """A list of paragraphs."""

    items: Sequence[str]


@dataclass(frozen=True)
class Figure:
    """A figure by its name, with the text for readers who cannot see it."""

    name: str
    caption: str


@dataclass(frozen=True)
class Responses:
    """A prompt with the responses of several models by name. HTML folds it below its `note`, if there is one."""

    prompt: Data
    responses: Mapping[str, Data]
    note: str = ""


@dataclass(frozen=True)
class Section:
    """A title and the blocks below it. A string is a paragraph; its only markup is `code`."""

    title: str
    blocks: Sequence["Block"]


Block = str | Table | Bullets | Figure | Responses | Section


def key_values(header: Sequence[str], values: Mapping[str, Any]) -> Table:
    """A table of names and values from data or params. Values other than texts are shown as JSON."""
    texts = {
        name: value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
        for name, value in values.items()
    }
    return Table(header, [[Data(name), Data(text)] for name, text in texts.items()], "ll")


def format_number(value: float, digits: int = 3) -> str:
    """The number with `digits` significant digits: 0.912, 15.3, 251,000."""
    rounded = float(f"{value:.{digits}g}")
    return f"{rounded:,.0f}" if abs(rounded) >= 1000 else f"{rounded:.{digits}g}"


def visible(text: str) -> str:
    """The text with its lines stripped, shortened to MAX_CHARACTERS; "(nothing)" if it is empty.

    Characters that are invisible or reorder a line become U+FFFD.
    """
    shortened = f"{text[:MAX_CHARACTERS]} ..." if len(text) > MAX_CHARACTERS else text
    lines = shortened.strip().splitlines()
    return "\n".join(HIDDEN.sub("\ufffd", line).replace("\t", " ").strip() for line in lines) or "(nothing)"


def flatten(value: Any, path: str) -> dict[str, Any]:
    """The leaves of nested mappings by dotted path; a list is a leaf."""
    if isinstance(value, dict) and value:
        return {key: leaf for name, child in value.items() for key, leaf in flatten(child, f"{path}.{name}").items()}
    return {path: value}
