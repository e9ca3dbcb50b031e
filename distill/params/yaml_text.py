"""YAML 1.2 as DVC reads it, by ruamel.yaml: one reader for stages, tools and DVC, with limits for hostile files.

PyYAML reads YAML 1.1, in which 010 is 8, `yes` is true, 1e-3 is a text and the last of two equal keys counts.
"""

import io
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError
from ruamel.yaml.events import CollectionEndEvent, CollectionStartEvent

from distill.core.errors import UserError, printable

MAX_CHARACTERS = 200_000  # read in some 5 seconds
MAX_DEPTH = 40
MAX_BITS = 1000  # of a whole number: Python refuses to print very long ones
MAX_VALUES = 100_000  # with those that aliases repeat


def read_yaml(path: Path) -> Any:
    """The value of a YAML file. Raises FileNotFoundError, and UserError as `parse_yaml` does."""
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise _refusal(path, str(error)) from None
    return parse_yaml(text, path)


def parse_yaml(text: str, path: Path) -> Any:
    """The value of a YAML text. Raises UserError for broken YAML, a key that stands twice, and what is too large."""
    if len(text) > MAX_CHARACTERS:
        raise _refusal(path, f"it has {len(text):,} characters, more than {MAX_CHARACTERS:,}")
    try:
        _require_depth(text, path)
        value = YAML(typ="safe").load(text)
    except UserError:
        raise
    except YAMLError as error:
        problem = getattr(error, "problem", None) or str(error)
        mark = getattr(error, "problem_mark", None)
        raise _refusal(path, problem if mark is None else f"line {mark.line + 1}: {problem}") from None
    except (ArithmeticError, AttributeError, LookupError, RecursionError, TypeError, ValueError) as error:
        # a date or number that does not exist, a tag on the wrong kind of value
        raise _refusal(path, str(error) or type(error).__name__) from None
    _require_size(value, path)
    return value


def format_yaml(value: Any) -> str:
    """The value as YAML that `parse_yaml` reads back: `yes` stays a text, 1e-3 a number."""
    files, text = YAML(), io.StringIO()
    files.width = 4096  # no line is folded
    files.dump(value, text)
    return text.getvalue()


def _require_depth(text: str, path: Path) -> None:
    """Raises UserError where collections are nested too deep; what follows is not read."""
    depth = 0
    for event in YAML(typ="safe").parse(io.StringIO(text)):
        depth += isinstance(event, CollectionStartEvent) - isinstance(event, CollectionEndEvent)
        if depth > MAX_DEPTH:
            raise _refusal(path, f"line {event.start_mark.line + 1}: it is nested more than {MAX_DEPTH} deep")


def _require_size(value: Any, path: Path) -> None:
    """Raises UserError where the value with all its aliases is too large, contains itself, or has a huge number."""
    queue, count = [value], 0
    while queue:
        item = queue.pop()
        count += 1
        if count > MAX_VALUES:
            raise _refusal(path, f"it has more than {MAX_VALUES:,} values, counting each as often as an alias names it")
        if isinstance(item, int) and item.bit_length() > MAX_BITS:
            raise _refusal(path, f"it has a whole number of more than {MAX_BITS} bits")
        if isinstance(item, dict):
            queue.extend([*item, *item.values()])
        elif isinstance(item, list | tuple | set):
            queue.extend(item)


def _refusal(path: Path, reason: str) -> UserError:
    return UserError(f"{path} is not YAML as DVC reads it: {printable(reason, 300)}. Fix the file.")
