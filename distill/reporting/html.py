"""The report as one self-contained HTML page."""

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup, escape

from distill.cards.document import Block, Data, Section, visible

TEMPLATES = Path(__file__).parent / "templates"
SYMBOLS = {">=": "\u2265", "<=": "\u2264", " ": "\N{NO-BREAK SPACE}"}


@dataclass(frozen=True)
class Image:
    """A figure as SVG, for a wide screen and for a phone."""

    wide: bytes
    narrow: bytes


def render(title: str, introduction: str, sections: Sequence[Section], images: Mapping[str, Image]) -> str:
    """The page with a list of contents; `images` has the figures of the sections by name."""
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    filters = {"kind": kind, "prose": prose, "cell": cell, "condition": condition, "slug": slug}
    environment.filters |= filters | {"visible": visible, "data_uri": data_uri}
    template = environment.get_template("report.html")
    return template.render(title=title, introduction=introduction, sections=sections, images=images)


def kind(block: Block) -> str:
    """The name of a block's class, which the template has a macro for."""
    return type(block).__name__


def slug(title: str) -> str:
    """The title as an anchor: `all-scores`."""
    return "-".join(title.lower().split())


def prose(text: str) -> Markup:
    """A paragraph, escaped, with the text between backticks as code."""
    fragments = [
        Markup("<code>{}</code>").format(fragment) if index % 2 else escape(fragment)
        for index, fragment in enumerate(text.split("`"))
    ]
    return Markup("").join(fragments)


def cell(text: str) -> str:
    """A table's cell: data made visible, other text without the marks of emphasis."""
    return visible(text) if isinstance(text, Data) else text.strip("*")


def condition(text: str) -> str:
    """A goal's condition in typographic symbols."""
    for symbol, replacement in SYMBOLS.items():
        text = text.replace(symbol, replacement)
    return text


def data_uri(image: bytes) -> str:
    """An SVG image as a data URI."""
    return f"data:image/svg+xml;base64,{base64.b64encode(image).decode()}"
