"""Read params.yaml and report every mistake in it at once."""

from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from distill.core.errors import UserError
from distill.params.schema import Params

PATH = Path("params.yaml")
UNIONS = (
    "prompts",
    "topic",
    "student",
    "layers",
    "targets",
    "target_modules",
)  # keys whose value is one of several kinds, beside `teachers`
KINDS = (
    "local",
    "openai",
    "jsonl",
    "folder",
    "dataset",
    "column",
    "buckets",
    "teacher",
    "pretrained",
    "number",
    "list",
    "word",
    "stored",
    "sampled",
    "hidden",
    "online",
    "on_policy",
)


def check(value: Any) -> Params:
    """The typed params, or one UserError that lists every mistake with its dotted path."""
    if not isinstance(value, dict):
        raise UserError(f"{PATH} must be a mapping of sections, but is {type(value).__name__}.")
    try:
        return Params.model_validate(value)
    except ValidationError as error:
        lines = [_line(details) for details in error.errors(include_url=False)]
        shown = lines[:20] + ([f"  ... and {len(lines) - 20} more"] if len(lines) > 20 else [])
        raise UserError(
            f"{PATH} has {len(lines)} mistake{'s' * (len(lines) > 1)}:\n" + "\n".join(shown) + "\n"
            "Every key is explained in params.yaml as committed (`git diff params.yaml` shows your changes)."
        ) from None


def load() -> Params:
    """Reads params.yaml from the current folder and checks all of it."""
    try:
        value = yaml.safe_load(PATH.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"{PATH} is missing: run the stage from the root of the repository.") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"{PATH} is not YAML: {error}") from None
    return check(value)


def _line(details: Any) -> str:
    """`  train.schedule.epochs: input should be greater than or equal to 1 (given 0)`."""
    location = details["loc"]
    path = ".".join(str(part) for index, part in enumerate(location) if not _is_kind(location, index))
    message = details["msg"].removeprefix("Value error, ")
    if details["type"] == "missing":
        return f"  {path}: is missing"
    if details["type"] == "extra_forbidden":
        return f"  {path}: is not a known key"
    if details["type"] == "value_error":
        return f"  {path + ': ' if path else ''}{message}"
    given = repr(details["input"])
    return f"  {path}: {message[0].lower()}{message[1:]} (given {given if len(given) <= 60 else given[:57] + '...'})"


def _is_kind(location: tuple[int | str, ...], index: int) -> bool:
    """Whether this part of the path is the kind of a union, which pydantic adds: it is no key of the file."""
    return (
        index > 0
        and (isinstance(location[index - 1], int) or location[index - 1] in UNIONS)
        and location[index] in KINDS
    )
