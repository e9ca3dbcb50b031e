"""An append-only file of answers outside DVC's outs: what was answered once is never asked again."""

import fcntl
import json
import os
from pathlib import Path
from typing import Any, Self

from distill.answers import Answer, from_row
from distill.errors import UserError

SCHEMA = 2


class Journal:
    """The answers of one teacher with one set of settings, a JSON line each, under a lock.

    `latest` has the newest answer to each request, failures included; `answers` those that did not fail.
    Each answer is on the disk before `append` returns, so that a kill at any moment loses none; the line
    that a kill cuts off is removed on the next opening.
    """

    def __init__(self, path: Path, settings: dict[str, Any]) -> None:
        """Opens or makes the file. Raises UserError where another process has it or it is not this journal."""
        self.path = path
        self.latest: dict[str, Answer] = {}
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = path.open("a+b")
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self._file.close()
            raise UserError(f"{path} is in use by another run; wait for it, or stop it, and run again.") from None
        try:
            self._cut_torn_line()
            self._read({"schema": SCHEMA, "settings": settings})
        except BaseException:
            self._file.close()
            raise

    @property
    def answers(self) -> dict[str, Answer]:
        """The answers by request id, without the failed ones."""
        return {key: answer for key, answer in self.latest.items() if answer.error is None}

    def append(self, answers: list[Answer]) -> None:
        """Writes the answers and waits until the disk has them. OSError (a full disk) leaves an openable file."""
        lines = b"".join(_line(vars(answer)) for answer in answers)
        self._write(lines)
        self.latest |= {answer.id: answer for answer in answers}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._file.close()

    def _write(self, lines: bytes) -> None:
        self._file.write(lines)
        self._file.flush()
        os.fsync(self._file.fileno())

    def _cut_torn_line(self) -> None:
        self._file.seek(0)
        content = self._file.read()
        end = content.rfind(b"\n") + 1
        if end < len(content):
            self._file.truncate(end)

    def _read(self, header: dict[str, Any]) -> None:
        self._file.seek(0)
        lines = self._file.read().splitlines()
        if not lines:
            self._write(_line(header))
            return
        if json.loads(lines[0]) != header:
            raise UserError(f"{self.path} is the journal of other settings; move it away and run again.")
        for number, line in enumerate(lines[1:], start=2):
            try:
                answer = from_row(json.loads(line))
            except (ValueError, KeyError, TypeError):
                raise UserError(
                    f"{self.path}, line {number} is broken: {line[:60].decode(errors='replace')!r}. Remove that line "
                    "(its request is asked again) and run again."
                ) from None
            self.latest[answer.id] = answer


def _line(value: dict[str, Any]) -> bytes:
    return json.dumps(value, ensure_ascii=False, allow_nan=False).encode() + b"\n"
