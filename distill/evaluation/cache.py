"""Cache of measurements outside DVC's outs, so that nothing is measured twice."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from distill.core.files import value_hash, write_json

Key = dict[str, Any]


def cached(folder: Path, name: str, key: Key, make: Callable[[], Any]) -> Any:
    """The result of `make`, read from the file of an earlier call with the same key where there is one.

    The key holds everything that the result depends on. Files are written atomically. A damaged file is named and
    ignored, and the result is measured again.
    """
    path = folder / f"{name}-{value_hash(key)[:16]}.json"
    stored = _read(path, key)
    if stored is not None:
        print(f"{name}: measured before ({path})", flush=True)
        return stored
    value = json.loads(json.dumps(make(), allow_nan=False))  # what is read back later is what is used now
    write_json(path, {"key": key, "hash": value_hash(value), "value": value})
    return value


def _read(path: Path, key: Key) -> Any | None:
    try:
        stored = json.loads(path.read_text(encoding="utf-8"))
        if stored["key"] == json.loads(json.dumps(key)) and value_hash(stored["value"]) == stored["hash"]:
            return stored["value"]
        reason = "its content does not match its key and hash"
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError) as error:
        reason = f"{type(error).__name__}: {str(error)[:80]}"
    print(f"{path} is damaged ({reason}): it is ignored and measured again", flush=True)
    return None
