"""Types of values in params.yaml.

Every number has bounds, beyond any use: what is larger would fail late, in a library's words, or exhaust the memory.
"""

import re
from typing import Annotated, Any
from urllib.parse import urlsplit

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Discriminator, Field, Tag

from distill.core.text import is_text

NUMBER = re.compile(r"[-+]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][-+]?[0-9]+)?")
LABEL = r"[A-Za-z0-9_](?:[A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?"
HOST = re.compile(rf"{LABEL}(?:\.{LABEL})*")
PACKAGE_FILE = re.compile(r"package:[A-Za-z][A-Za-z0-9_]*(?:/(?!\.\.?(?:/|$))[^/]+)+")


def _number(value: Any) -> Any:
    """The number of a text such as "1e-4": YAML of earlier versions, and PyYAML, take 1e-4 for a text."""
    return float(value) if isinstance(value, str) and NUMBER.fullmatch(value) and len(value) < 40 else value


def _zero_or_divisor(value: float) -> float:
    if 0 < value < 0.01:
        raise ValueError(f"must be 0, for greedy decoding, or from 0.01 to 2, got {value:g}")
    return value


def _plain(value: str) -> str:
    if "\0" in value or not is_text(value):
        raise ValueError("must be text without null characters and halves of characters")
    return value


def _one_line(value: str) -> str:
    if not value.isprintable() or value != value.strip():
        raise ValueError("must be one line of visible characters, without spaces around it")
    return value


def _url(value: str) -> str:
    """The URL if every library takes it: a host name or address of ASCII, a port that exists, no user, no query."""
    requirement = "must be http://HOST[:PORT]/PATH or https://, without user, query and fragment"
    try:
        parts = urlsplit(value)
        port = parts.port
    except ValueError:
        raise ValueError(requirement) from None
    host = parts.hostname or ""
    known_host = (HOST.fullmatch(host) and len(host) <= 253) or ":" in host  # an address of IPv6, which urlsplit checks
    plain = re.fullmatch(r"https?://[\x21-\x7e]+", value) and not re.search(r"[@?#\\<>\"^`{|}]", value)
    if not plain or not known_host or port == 0:
        raise ValueError(requirement)
    return value


def _glob(value: str) -> str:
    """The pattern of files below a folder, as pathlib takes it in every version."""
    parts = value.split("/")
    if value.startswith("/") or ".." in parts or any("**" in part and part != "**" for part in parts):
        raise ValueError("must be a pattern such as '**/*.txt' of files below the folder, with ** for whole folders")
    return value


def _model(value: str) -> str:
    if value.startswith("package:") and not PACKAGE_FILE.fullmatch(value):
        raise ValueError("must be package:NAME/FILE, a file inside an installed Python package")
    return value


Real = Annotated[float, BeforeValidator(_number), Field(allow_inf_nan=False, ge=-1e12, le=1e12)]
Positive = Annotated[Real, Field(ge=1e-9)]
NotNegative = Annotated[Real, Field(ge=0)]
Fraction = Annotated[Real, Field(ge=0, le=1)]
PositiveFraction = Annotated[Real, Field(gt=0, le=1)]
LossTemperature = Annotated[Real, Field(ge=0.01, le=100)]
SamplingTemperature = Annotated[Real, Field(ge=0, le=2), AfterValidator(_zero_or_divisor)]
Count = Annotated[int, Field(ge=1, le=10**9)]
SmallCount = Annotated[int, Field(ge=1, le=1000)]
Tokens = Annotated[int, Field(ge=1, le=10**6)]  # of one text; words likewise
Name = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_-]*$", max_length=100)]
Text = Annotated[str, Field(min_length=1, max_length=100_000), AfterValidator(_plain)]
Line = Annotated[str, Field(min_length=1, max_length=1000), AfterValidator(_one_line)]  # a path, a name
Model = Annotated[Line, AfterValidator(_model)]
Glob = Annotated[Line, AfterValidator(_glob)]
Url = Annotated[Line, AfterValidator(_url)]
LayerNumber = Annotated[int, Field(ge=0, le=9999)]
LayerList = Annotated[list[LayerNumber], Field(min_length=1)]
Layers = Annotated[  # a number of layers, or a list of them
    Annotated[Annotated[int, Field(ge=1, le=10_000)], Tag("number")] | Annotated[LayerList, Tag("list")],
    Discriminator(lambda value: "list" if isinstance(value, list) else "number"),
]


class Section(BaseModel):
    """A section of params.yaml. Every key must be known, present and of its type."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)
