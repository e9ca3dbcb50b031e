"""Atomic files: complete or absent, and the same bytes for the same rows."""

import glob
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from distill.core.errors import UserError

Row = dict[str, Any]  # a JSON object: one line of a JSONL file
SUFFIX = ".tmp"  # of temporary files and folders: a dot, the name, eight random characters, this


@contextmanager
def atomic_file(path: Path) -> Iterator[Path]:
    """Yield a temporary path in the folder of `path`. When the block succeeds, sync it and rename it to `path`."""
    _prepare_folder(path)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=SUFFIX)
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        _sync(temporary)
        temporary.chmod(0o644)
        temporary.replace(path)
        _sync(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def atomic_folder(path: Path) -> Iterator[Path]:
    """Yield a temporary folder in the parent of `path`. When the block succeeds, it replaces `path`.

    A kill between the two renames leaves no folder at `path`.
    """
    _prepare_folder(path)
    temporary, old = (Path(tempfile.mkdtemp(dir=path.parent, prefix=f".{path.name}.", suffix=SUFFIX)) for _ in range(2))
    try:
        yield temporary
        for file in sorted(temporary.rglob("*")):
            if file.is_file():
                file.chmod(0o644)
                _sync(file)
        temporary.chmod(0o755)
        if path.exists():
            path.replace(old)
        temporary.replace(path)
        _sync(path.parent)
    finally:
        for folder in (temporary, old):
            shutil.rmtree(folder, ignore_errors=True)


def write_text(path: Path, text: str) -> None:
    """Write `text` as UTF-8."""
    with atomic_file(path) as temporary:
        temporary.write_text(text, encoding="utf-8", newline="\n")


def write_json(path: Path, value: Any) -> None:
    """Write indented JSON in the order of the keys. Raises ValueError for NaN and infinity."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def write_rows(path: Path, rows: Iterable[Row]) -> int:
    """Write one JSON object a line and return their number. Raises ValueError for NaN and infinity."""
    count = 0
    with atomic_file(path) as temporary, temporary.open("w", encoding="utf-8", newline="\n") as file:
        for row in rows:
            file.write(json.dumps(row, ensure_ascii=False, allow_nan=False) + "\n")
            count += 1
    return count


def read_rows(path: Path, writer: str) -> Iterator[Row]:
    """Yield the objects of a JSONL file.

    `writer` names the source of the file ("stage generate") in messages. Raises UserError for a missing file and,
    with its number, for a line that is not a JSON object.
    """
    return (row for _, row in rows_with_offsets(path, writer))


def rows_with_offsets(path: Path, writer: str) -> Iterator[tuple[int, Row]]:
    """Yield the offset in bytes and the object of each line of a JSONL file. Raises as `read_rows` does."""
    _require_file(path, writer)
    start = 0
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            try:
                row = json.loads(line)
            except (ValueError, RecursionError) as error:
                raise UserError(f"{path}, line {number} is not JSON ({error}). {_advice(writer)}") from None
            if not isinstance(row, dict):
                text = line.decode(errors="replace").strip()[:60]
                raise UserError(f"{path}, line {number} must be a JSON object, got {text!r}. {_advice(writer)}")
            yield start, row
            start += len(line)


def read_json(path: Path, writer: str) -> Row:
    """The object of a JSON file. Raises UserError if it is missing, broken or another value."""
    _require_file(path, writer)
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path} is not JSON ({error}). {_advice(writer)}") from None
    if not isinstance(value, dict):
        raise UserError(f"{path} must be a JSON object, got {repr(value)[:60]}. {_advice(writer)}")
    return value


def file_hash(path: Path) -> str:
    """SHA-256 of a file, as hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def value_hash(value: Any) -> str:
    """SHA-256 of a JSON value, independent of the order of keys, as hex."""
    text = json.dumps(value, sort_keys=True, ensure_ascii=False, allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def _prepare_folder(path: Path) -> None:
    """Make the folder of `path` and remove the temporary files and folders of a killed writer of `path`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    for leftover in path.parent.glob(f".{glob.escape(path.name)}.????????{SUFFIX}"):
        if leftover.is_dir():
            shutil.rmtree(leftover)
        else:
            leftover.unlink()


def _require_file(path: Path, writer: str) -> None:
    if not path.exists():
        advice = " Run `dvc repro` to make it, or `dvc pull` to fetch it." if writer.startswith("stage ") else ""
        raise UserError(f"{path} is missing; it comes from {writer}.{advice}")


def _advice(writer: str) -> str:
    """Who wrote a broken file, and what to do where that is a stage."""
    if not writer.startswith("stage "):
        return f"It comes from {writer}."
    return f"It comes from {writer}. Restore it with `dvc checkout`, or make it again with `dvc repro`."


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
