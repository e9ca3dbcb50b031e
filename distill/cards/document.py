"""Sections, tables and numbers of a report or a card, before they become markdown or HTML."""

import json
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

SHOWN = 600  # characters of a text that are shown
REORDERING = "\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"


class Data(str):
    """A cell that holds text from data or params, to be shown as it is and never as markup."""


@dataclass(frozen=True)
class Table:
    """Rows below a header; `align` has l or r a column, empty for the first to the left and the others to the right."""

    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    align: str = ""

    @property
    def sides(self) -> str:
        """l or r for each column."""
        return self.align or "l" + "r" * (len(self.header) - 1)


@dataclass(frozen=True)
class Section:
    """A title, and paragraphs and tables below it. A paragraph's only markup is `code`."""

    title: str
    blocks: Sequence[str | Table]


def pairs(header: Sequence[str], values: Mapping[str, Any]) -> Table:
    """A table of names and values from data or params; what is no text is shown as JSON."""
    texts = {
        name: value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
        for name, value in values.items()
    }
    return Table(header, [[Data(name), Data(text)] for name, text in texts.items()], "ll")


def number(value: float, digits: int = 3) -> str:
    """That many significant digits, thousands as such: 0.912, 15.3, 251,000."""
    rounded = float(f"{value:.{digits}g}")
    return f"{rounded:,.0f}" if abs(rounded) >= 1000 else f"{rounded:.{digits}g}"


def visible(text: str) -> str:
    """Any text, cut where it is long, its lines stripped, "(nothing)" where it is empty.

    Characters that a reader cannot see or that reorder a line become U+FFFD.
    """
    cut = f"{text[:SHOWN]} ..." if len(text) > SHOWN else text
    return "\n".join("".join(map(_seen, line)).strip() for line in cut.strip().splitlines()) or "(nothing)"


def _seen(character: str) -> str:
    hidden = character in REORDERING or unicodedata.category(character) in ("Cc", "Cs")
    return " " if character == "\t" else "\N{REPLACEMENT CHARACTER}" if hidden else character


def flat(value: Any, path: str) -> dict[str, Any]:
    """The leaves of nested mappings by dotted path; a list is a leaf."""
    if isinstance(value, dict) and value:
        return {key: leaf for name, part in value.items() for key, leaf in flat(part, f"{path}.{name}").items()}
    return {path: value}
