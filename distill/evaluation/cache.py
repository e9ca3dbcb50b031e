"""What a model's items were measured as, kept outside DVC's outs, so that the same measurement is not made twice."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from distill.core.files import value_hash, write_json

Key = dict[str, Any]


def cached(folder: Path, name: str, key: Key, make: Callable[[], Any]) -> Any:
    """What `make` gives for this key (all that it depends on): from the file that an earlier call left, or made anew.

    Files are written whole or not at all. One that is damaged, or another key's, is named, ignored and written anew.
    """
    path = folder / f"{name}-{value_hash(key)[:16]}.json"
    found = _read(path, key)
    if found is not None:
        print(f"{name}: measured before ({path})", flush=True)
        return found
    made = json.loads(json.dumps(make(), allow_nan=False))  # what is read back later is what is used now
    write_json(path, {"key": key, "hash": value_hash(made), "value": made})
    return made


def _read(path: Path, key: Key) -> Any | None:
    try:
        stored = json.loads(path.read_text(encoding="utf-8"))
        if stored["key"] == json.loads(json.dumps(key)) and value_hash(stored["value"]) == stored["hash"]:
            return stored["value"]
        reason = "it is not what was written"
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError) as error:
        reason = f"{type(error).__name__}: {str(error)[:80]}"
    print(f"{path} is damaged ({reason}): it is ignored and measured anew", flush=True)
    return None
