"""Files are written whole or not at all, and the same rows always give the same bytes."""

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
def whole_file(path: Path) -> Iterator[Path]:
    """Gives a temporary path beside `path`; when the block ends well it is synced and renamed to `path`."""
    _make_way(path)
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
def whole_folder(path: Path) -> Iterator[Path]:
    """Gives a temporary folder beside `path`; when the block ends well it takes the place of `path`.

    A kill may come when the old folder has gone and the new one has not come: then there is none.
    """
    _make_way(path)
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
    """Writes `text` as UTF-8, whole or not at all."""
    with whole_file(path) as temporary:
        temporary.write_text(text, encoding="utf-8", newline="\n")


def write_json(path: Path, value: Any) -> None:
    """Writes indented JSON in the order of the keys given. NaN and infinity are refused (ValueError)."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def write_rows(path: Path, rows: Iterable[Row]) -> int:
    """Writes one JSON object a line and returns how many. NaN and infinity are refused (ValueError)."""
    count = 0
    with whole_file(path) as temporary, temporary.open("w", encoding="utf-8", newline="\n") as file:
        for row in rows:
            file.write(json.dumps(row, ensure_ascii=False, allow_nan=False) + "\n")
            count += 1
    return count


def read_rows(path: Path, writer: str) -> Iterator[Row]:
    """Yields the objects of a JSONL file.

    `writer` says where the file comes from ("stage generate"), for the message when it is missing.
    Raises UserError for a missing file and for a line that is not a JSON object, with its number.
    """
    return (row for _, row in located_rows(path, writer))


def located_rows(path: Path, writer: str) -> Iterator[tuple[int, Row]]:
    """Yields (the byte where its line starts, the object) for each line of a JSONL file; raises as `read_rows` does."""
    _must_exist(path, writer)
    start = 0
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            try:
                row = json.loads(line)
            except ValueError as error:
                raise UserError(f"{path}, line {number} is not JSON ({error}). It comes from {writer}.") from None
            if not isinstance(row, dict):
                text = line.decode(errors="replace").strip()[:60]
                raise UserError(f"{path}, line {number} is not a JSON object but {text!r}.")
            yield start, row
            start += len(line)


def read_json(path: Path, writer: str) -> Any:
    """The value of a JSON file. Raises UserError where it is missing or broken."""
    _must_exist(path, writer)
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise UserError(f"{path} is not JSON ({error}). It comes from {writer}.") from None


def file_hash(path: Path) -> str:
    """SHA-256 of a file, as hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def value_hash(value: Any) -> str:
    """SHA-256 of a JSON value, independent of the order of keys, as hex."""
    text = json.dumps(value, sort_keys=True, ensure_ascii=False, allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def _make_way(path: Path) -> None:
    """Makes the folder of `path` and removes the temporary files and folders that a killed writer of `path` left."""
    path.parent.mkdir(parents=True, exist_ok=True)
    for left in path.parent.glob(f".{glob.escape(path.name)}.????????{SUFFIX}"):
        if left.is_dir():
            shutil.rmtree(left)
        else:
            left.unlink()


def _must_exist(path: Path, writer: str) -> None:
    if not path.exists():
        raise UserError(
            f"{path} is missing; it comes from {writer}. "
            "Run `dvc repro` to make it and what it needs, or `dvc pull` to fetch it."
        )


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
