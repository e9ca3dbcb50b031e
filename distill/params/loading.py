"""Read params.yaml and report every mistake in it at once."""

from pathlib import Path
from typing import Any

from pydantic import ValidationError

from distill.core.errors import UserError, printable
from distill.params.renamed import renamed_keys
from distill.params.rules import RULES
from distill.params.schema import Params
from distill.params.yaml_text import read_yaml

PATH = Path("params.yaml")
MAX_LINES = 20
MAX_SHOWN, MAX_LINE = 60, 240  # characters of a value or key, and of a mistake
DISCRIMINATORS = ("kind", "source", "measure")  # keys that choose the member of a union
HINT = "Every key is explained in params.yaml as committed (`git diff params.yaml` shows your changes)."


def load_params() -> Params:
    """params.yaml of the current folder, checked. Raises UserError where it is missing, no YAML, or wrong."""
    try:
        return check_params(read_yaml(PATH))
    except FileNotFoundError:
        raise UserError(f"{PATH} is missing: run the stage from the root of the repository.") from None


def check_params(value: Any) -> Params:
    """The typed params, or one UserError that lists every mistake with its dotted path."""
    if not isinstance(value, dict):
        raise UserError(f"{PATH} must be a mapping of sections, but is {type(value).__name__}.")
    if old := list(renamed_keys(value)):
        lines = [f"  {path}: is now {new}" for path, new in old]
        raise UserError(f"{PATH} has keys of an earlier version:\n{_listed(lines)}\nRename them. {HINT}")
    try:
        params = Params.model_validate(value)
    except ValidationError as error:
        lines = [line for details in error.errors(include_url=False) for line in _lines(details, value)]
        raise _refusal(lines) from None
    if mistakes := [f"  {mistake}" for rule in RULES for mistake in rule(params)]:
        raise _refusal(mistakes)
    return params


def _refusal(lines: list[str]) -> UserError:
    return UserError(f"{PATH} has {len(lines)} mistake{'s' * (len(lines) > 1)}:\n{_listed(lines)}\n{HINT}")


def _listed(lines: list[str]) -> str:
    more = [f"  ... and {len(lines) - MAX_LINES} more"] if len(lines) > MAX_LINES else []
    return "\n".join([printable(line.replace("\n", "\\n"), MAX_LINE) for line in lines[:MAX_LINES]] + more)


def _lines(details: Any, value: dict[str, Any]) -> list[str]:
    """`  train.optimization.batch_size: input should be greater than or equal to 1 (got 0)`."""
    if details["type"] == "missing":
        *section, key = details["loc"]
        return [f"  {'.'.join(map(_shown, [*_keys(tuple(section), value), key]))}: is missing"]
    path = ".".join(map(_shown, _keys(details["loc"], value)))
    if details["type"] == "extra_forbidden":
        return [f"  {path}: is not a known key"]
    if details["type"] == "value_error":
        return [f"  {path + ': ' if path else ''}{mistake}" for mistake in details["ctx"]["error"].args]
    message = details["msg"]
    shown = _shown(details["input"]) if not isinstance(details["input"], str) else repr(_shown(details["input"]))
    return [f"  {path}: {message[0].lower()}{message[1:]} (got {shown})"]


def _shown(value: Any) -> str:
    """A key or value, short."""
    text = value if isinstance(value, str) else repr(value)
    return text if len(text) <= MAX_SHOWN else f"{text[: MAX_SHOWN - 3]}..."


def _keys(location: tuple[int | str, ...], value: Any) -> list[int | str]:
    """The keys of the file in a pydantic location, which also names the member of each union.

    A member may have the name of a key (targets.top_k), so that it is told by the key that chooses it.
    """
    keys: list[int | str] = []
    is_member = False  # whether the last name was that of a union's member
    for name in location:
        if isinstance(value, dict) and not is_member and name in (value.get(key) for key in DISCRIMINATORS):
            is_member = True
        elif (isinstance(value, dict) and name in value) or (isinstance(value, list) and isinstance(name, int)):
            keys.append(name)
            value, is_member = value[name], False  # type: ignore[index]  # an index of the list or a key
    return keys
