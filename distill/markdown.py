"""Tables, numbers and any text as markdown."""

import html
import unicodedata
from collections.abc import Iterable, Sequence

ANSWER = 600  # characters of an answer that are shown
REORDERING = "\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"
MARKS = {ord(mark): f"&#{ord(mark)};" for mark in "\\`*_[]|~#$:@"}


def table(header: Sequence[str], rows: Iterable[Sequence[str]], align: str | None = None) -> str:
    """A markdown table; `align` has l or r a column, by default the first to the left and the others to the right."""
    rules = ["---:" if side == "r" else "---" for side in align or "l" + "r" * (len(header) - 1)]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in [header, rules, *rows])


def number(value: float, digits: int = 3) -> str:
    """That many significant digits, thousands as such: 0.912, 15.3, 251,000."""
    rounded = float(f"{value:.{digits}g}")
    return f"{rounded:,.0f}" if abs(rounded) >= 1000 else f"{rounded:.{digits}g}"


def quoted(text: str) -> str:
    """Any text on one line of a markdown table cell, shown as it is and never as markup.

    Characters that a reader cannot see or that reorder a line are shown as U+FFFD, long texts are cut.
    """
    cut = f"{text[:ANSWER]} ..." if len(text) > ANSWER else text
    lines = ["".join(_visible(character) for character in line).strip() for line in cut.strip().splitlines()]
    return "<br>".join(html.escape(line, quote=False).translate(MARKS) for line in lines) or "(nothing)"


def _visible(character: str) -> str:
    hidden = character in REORDERING or unicodedata.category(character) in ("Cc", "Cs")
    return " " if character == "\t" else "\N{REPLACEMENT CHARACTER}" if hidden else character
