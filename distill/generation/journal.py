"""Append-only file of completions outside DVC's outs: no completed request is sent again."""

import fcntl
import json
import os
import re
import sys
import zlib
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Self

from distill.core.errors import UserError
from distill.core.files import Row
from distill.generation.completions import TOKENS, Completion, token_counts

SCHEMA = 2
CHECKSUM = re.compile(rb', "crc32": "([0-9a-f]{8})"\}\n\Z')


class StoredCompletions(Mapping[str, Completion]):
    """The newest completion of each request by its id, read from the journal's file on access."""

    def __init__(self, path: Path, spans: dict[str, tuple[int, int]]) -> None:
        """`spans` has the start and the length of each line in bytes."""
        self._spans = spans
        self._file = path.open("rb")

    def __getitem__(self, key: str) -> Completion:
        start, length = self._spans[key]
        return Completion.from_json(json.loads(os.pread(self._file.fileno(), length, start)))

    def __iter__(self) -> Iterator[str]:
        return iter(self._spans)

    def __len__(self) -> int:
        return len(self._spans)


class Journal:
    """The completions of one teacher at one endpoint, one JSON line each, under a lock.

    `latest` has the newest completion of each request, including failures. `completed` has the ids of those that did
    not fail. Completions stay on disk, so memory does not grow with them. `billed` counts the tokens that were or may
    have been paid for. A sent attempt counts with its maximum until its completion says less, and for good if none
    arrives. `in_flight` has the attempts without a completion. `notes` keeps other values that must survive a run.

    A kill loses nothing that `append` returned from; a power cut loses nothing that `sync` returned from. The next
    opening removes a line that a kill truncated. Each line ends with its checksum, but for the first one and lines of
    earlier versions. A missing or broken first line costs no completion, since the file's name says whose they are.
    """

    def __init__(self, path: Path, settings: Row) -> None:
        """Opens or creates the file. Raises UserError if another process holds it or its settings differ."""
        self.path = path
        self.completed: set[str] = set()
        self.notes: dict[str, Any] = {}
        self._spans: dict[str, tuple[int, int]] = {}
        self.in_flight: dict[str, dict[str, int]] = {}
        self.billed: Counter[str] = Counter(dict.fromkeys(TOKENS, 0))
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = path.open("a+b", buffering=0)
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self._file.close()
            raise UserError(f"{path} is in use by another run. Wait for it or stop it, then run again.") from None
        try:
            self._end = self._read({"schema": SCHEMA, "settings": settings})
            self.latest = StoredCompletions(path, self._spans)
        except BaseException:
            self._file.close()
            raise

    def append(self, completions: list[Completion]) -> None:
        """Writes the completions, one write a line. After an OSError (a full disk) the file can still be opened."""
        for completion in completions:
            self._write(vars(completion))

    def record_sent(self, request_id: str, max_tokens: dict[str, int]) -> None:
        """Writes that an attempt is about to be sent, with the maximum of tokens that it can cost."""
        self._write({"sent": request_id, "tokens": max_tokens})

    def note(self, key: str, value: Any) -> None:
        """Writes a value under a key, replacing an earlier one, and waits until it is on disk."""
        self._write({"note": key, "value": value})
        self.sync()

    def sync(self) -> None:
        """Waits until everything written is on disk."""
        os.fsync(self._file.fileno())

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.sync()
        self._file.close()

    def _write(self, value: Row) -> None:
        line = _with_checksum(json.dumps(value, ensure_ascii=False, allow_nan=False).encode())
        rest = memoryview(line)
        try:
            while rest:
                rest = rest[self._file.write(rest) :]
        except OSError:
            self._file.truncate(self._end)
            raise
        self._index(value, self._end, len(line))
        self._end += len(line)

    def _index(self, value: Row, start: int, length: int) -> None:
        """Counts the line that starts at byte `start`. Raises KeyError, TypeError or ValueError for an invalid one."""
        if "note" in value:
            self.notes[value["note"]] = value["value"]
        elif "sent" in value:
            tokens = token_counts(value["tokens"])
            if tokens is None:
                raise ValueError("no token counts")
            self.in_flight[value["sent"]] = tokens
            self.billed.update(tokens)
        else:
            completion = Completion.from_json(value)
            self._spans[completion.id] = (start, length)
            self.billed.update(completion.billed or {})
            self.billed.subtract(self.in_flight.pop(completion.id, {}))
            if completion.error is None:
                self.completed.add(completion.id)

    def _read(self, header: Row) -> int:
        """Indexes every line and removes a truncated last one. Returns the file's length in bytes."""
        end = 0
        self._has_checksums = False
        self._file.seek(0)
        with open(self._file.fileno(), "rb", closefd=False) as lines:
            for number, line in enumerate(lines, start=1):
                if not line.endswith(b"\n"):
                    self._file.truncate(end)
                    break
                if number > 1 or not self._is_header(line, header):
                    self._read_line(line, number, end)
                end += len(line)
        if end == 0:
            line = json.dumps(header).encode() + b"\n"
            self._file.write(line)
            self.sync()
            end = len(line)
        return end

    def _read_line(self, line: bytes, number: int, start: int) -> None:
        try:
            self._has_checksums = _has_right_checksum(line, self._has_checksums)
            self._index(json.loads(line), start, len(line))
        except (ValueError, KeyError, TypeError, RecursionError):
            if number == 1:
                print(f"{self.path}: the first line is broken and not used; all others are", file=sys.stderr)
                return
            raise UserError(
                f"{self.path}, line {number} is broken: {line[:60].decode(errors='replace')!r}. Remove that line "
                f"(sed -i {number}d FILE) and run again; its request is sent again, and all others are kept."
            ) from None

    def _is_header(self, line: bytes, header: Row) -> bool:
        """Whether the first line is the header. Raises UserError if it is the header of another journal."""
        try:
            value = json.loads(line)
        except (ValueError, RecursionError):
            return False
        if value == header:
            return True
        if isinstance(value, dict) and value.keys() == header.keys():
            raise UserError(
                f"{self.path} must be a journal with {header}, got {str(value)[:200]}. If its responses are of this "
                "teacher, remove the first line (sed -i 1d FILE); else move the file away. Then run again."
            )
        return False


def _with_checksum(line: bytes) -> bytes:
    """The line of a JSON object with the CRC-32 of its bytes as the last field."""
    return line.removesuffix(b"}") + f', "crc32": "{zlib.crc32(line):08x}"}}\n'.encode()


def _has_right_checksum(line: bytes, is_required: bool) -> bool:
    """Whether a line has a checksum. Raises ValueError if it is wrong, or required and missing."""
    match = CHECKSUM.search(line)
    if match is None:
        if is_required:
            raise ValueError("no checksum")
        return False
    if int(match[1], 16) != zlib.crc32(line[: match.start()] + b"}"):
        raise ValueError("a wrong checksum")
    return True
