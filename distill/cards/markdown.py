"""Sections, tables and any text as markdown."""

import html

from distill.cards.document import Data, Section, Table, visible
from distill.core.errors import UserError

BEGIN, END = "<!-- table:begin -->", "<!-- table:end -->"
MARKS = {ord(mark): f"&#{ord(mark)};" for mark in "\\`*_[]|~#$:@"}


def table(found: Table) -> str:
    """A markdown table."""
    rules = ["---:" if side == "r" else "---" for side in found.sides]
    header, *rows = [
        [quoted(cell) if isinstance(cell, Data) else cell for cell in row] for row in (found.header, *found.rows)
    ]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in [header, rules, *rows])


def section(found: Section) -> str:
    """A heading of the second level, and what stands below it."""
    blocks = [block if isinstance(block, str) else table(block) for block in found.blocks]
    return "\n\n".join([f"## {found.title}", *blocks])


def quoted(text: str) -> str:
    """Any text on one line of a markdown table cell, made `visible`, shown as it is and never as markup."""
    return "<br>".join(html.escape(line, quote=False).translate(MARKS) for line in visible(text).split("\n"))


def between(text: str, block: str, source: str) -> str:
    """The text with what stands between the marks replaced. Raises UserError where a mark is missing."""
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise UserError(f"{source} has no lines {BEGIN} and {END} to write the table between.")
    return f"{before}{BEGIN}\n{block}\n{END}{after}"
