"""Blocks of a document, and text from data, as markdown."""

import html
import re

from distill.cards.document import Block, Bullets, Data, Figure, Responses, Section, Table, visible
from distill.core.errors import UserError

FIGURES = "figures"  # the folder of a report's figures, beside the report
SPECIAL = {ord(character): f"&#{ord(character)};" for character in "\\`*_[]|~#$:@"}
WWW = re.compile(r"(www)\.", re.IGNORECASE)  # GitHub makes a link of such a name without a scheme


def render(block: Block, level: int = 2) -> str:
    """A block as markdown. `level` is the heading level of a section."""
    match block:
        case Section(title, blocks):
            return "\n\n".join([f"{'#' * level} {title}", *(render(child, level + 1) for child in blocks)])
        case Table():
            return table(block)
        case Bullets(items):
            return "\n".join(f"- {item}" for item in items)
        case Figure(name, caption):
            return f"![{caption}]({FIGURES}/{name}.png)"
        case Responses(prompt, responses, note):
            rows = [[Data(name), text] for name, text in responses.items()]
            return "\n\n".join(
                [f"**{quoted(prompt)}**", *filter(None, [note]), table(Table(["model", "response"], rows, "ll"))]
            )
        case _:
            return block


def table(block: Table) -> str:
    """A markdown table."""
    rules = ["---:" if side == "r" else "---" for side in block.sides]
    header, *rows = [
        [quoted(cell) if isinstance(cell, Data) else cell for cell in row] for row in (block.header, *block.rows)
    ]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in [header, rules, *rows])


def quoted(text: str) -> str:
    """The visible text on one line, escaped so that it never becomes markup."""
    lines = (html.escape(line, quote=False).translate(SPECIAL) for line in visible(text).split("\n"))
    return "<br>".join(WWW.sub(r"\1&#46;", line) for line in lines)


def marks(name: str) -> tuple[str, str]:
    """The lines that enclose a block of this name, which commands rewrite."""
    return f"<!-- {name}:begin -->", f"<!-- {name}:end -->"


def between(text: str, block: str, name: str, source: str) -> str:
    """The text with `block` between the marks of this name. Raises UserError if a mark is missing."""
    begin, end = marks(name)
    before, begin_mark, rest = text.partition(begin)
    _, end_mark, after = rest.partition(end)
    if not begin_mark or not end_mark:
        raise UserError(f"{source} must have the lines {begin} and {end}. Add them where the {name} should stand.")
    return f"{before}{begin}\n{block}\n{end}{after}"
