"""An append-only file of answers outside DVC's outs: what was answered once is never asked again."""

import fcntl
import json
import os
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Self

from distill.core.errors import UserError
from distill.generation.completions import Answer, from_row

SCHEMA = 2
TOKENS = ("prompt_tokens", "completion_tokens")


class Answers(Mapping[str, Answer]):
    """The newest answer to each request by its id, read from the journal's file when it is looked at."""

    def __init__(self, path: Path, places: dict[str, tuple[int, int]]) -> None:
        self._path, self._places = path, places
        self._file = path.open("rb")

    def __getitem__(self, key: str) -> Answer:
        place, length = self._places[key]
        return from_row(json.loads(os.pread(self._file.fileno(), length, place)))

    def __iter__(self) -> Iterator[str]:
        return iter(self._places)

    def __len__(self) -> int:
        return len(self._places)


class Journal:
    """The answers of one teacher at one endpoint, a JSON line each, under a lock.

    `latest` has the newest answer to each request, failures included, and `answered` the ids of those that did
    not fail; answers stay on the disk, so that memory does not grow with them. `billed` are the tokens that
    were or may have been paid for: an attempt that was sent counts with the most that it can cost until its
    answer says less, and for good where none came. `on_their_way` are those without an answer. `notes` keeps
    what else must outlive a run.

    What `append` was given is with the system when it returns, so that a kill loses none of it, and on the
    disk when `sync` returns. The line that a kill cuts off is removed on the next opening.
    """

    def __init__(self, path: Path, settings: dict[str, Any]) -> None:
        """Opens or makes the file. Raises UserError where another process has it or it is not this journal."""
        self.path = path
        self.answered: set[str] = set()
        self.notes: dict[str, Any] = {}
        self._places: dict[str, tuple[int, int]] = {}
        self.on_their_way: dict[str, dict[str, int]] = {}
        self.billed: Counter[str] = Counter(dict.fromkeys(TOKENS, 0))
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = path.open("a+b", buffering=0)
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self._file.close()
            raise UserError(f"{path} is in use by another run; wait for it, or stop it, and run again.") from None
        try:
            self._end = self._read({"schema": SCHEMA, "settings": settings})
            self.latest = Answers(path, self._places)
        except BaseException:
            self._file.close()
            raise

    def append(self, answers: list[Answer]) -> None:
        """Writes the answers, one write a line. OSError (a full disk) leaves a file that can be opened."""
        for answer in answers:
            self._write(vars(answer))

    def sent(self, request_id: str, tokens: dict[str, int]) -> None:
        """Writes that an attempt is about to be sent, with the most tokens that it can cost."""
        self._write({"sent": request_id, "tokens": tokens})

    def note(self, key: str, value: Any) -> None:
        """Writes a value under a key, in place of an earlier one, and waits until the disk has it."""
        self._write({"note": key, "value": value})
        self.sync()

    def sync(self) -> None:
        """Waits until the disk has all that was written."""
        os.fsync(self._file.fileno())

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.sync()
        self._file.close()

    def _write(self, value: dict[str, Any]) -> None:
        line = json.dumps(value, ensure_ascii=False, allow_nan=False).encode() + b"\n"
        rest = memoryview(line)
        try:
            while rest:
                rest = rest[self._file.write(rest) :]
        except OSError:
            self._file.truncate(self._end)
            raise
        self._take(value, self._end, len(line))
        self._end += len(line)

    def _take(self, value: dict[str, Any], place: int, length: int) -> None:
        """Counts a line that stands at `place` of the file. Raises KeyError or TypeError for one that is none."""
        if "note" in value:
            self.notes[value["note"]] = value["value"]
        elif "sent" in value:
            self.on_their_way[value["sent"]] = value["tokens"]
            self.billed.update(value["tokens"])
        else:
            answer = from_row(value)
            self._places[answer.id] = (place, length)
            self.billed.update(answer.billed or {})
            self.billed.subtract(self.on_their_way.pop(answer.id, {}))
            if answer.error is None:
                self.answered.add(answer.id)

    def _read(self, header: dict[str, Any]) -> int:
        """Takes every line and cuts off a torn last one; returns where the file ends."""
        end = 0
        self._file.seek(0)
        with open(self._file.fileno(), "rb", closefd=False) as lines:
            for number, line in enumerate(lines, start=1):
                if not line.endswith(b"\n"):
                    self._file.truncate(end)
                    break
                try:
                    value = json.loads(line)
                    if number == 1:
                        self._check(value, header)
                    else:
                        self._take(value, end, len(line))
                except (ValueError, KeyError, TypeError):
                    raise UserError(
                        f"{self.path}, line {number} is broken: {line[:60].decode(errors='replace')!r}. Remove that "
                        "line (its request is asked again) and run again."
                    ) from None
                end += len(line)
        if end == 0:
            line = json.dumps(header).encode() + b"\n"
            self._file.write(line)
            self.sync()
            end = len(line)
        return end

    def _check(self, value: Any, header: dict[str, Any]) -> None:
        if value != header:
            raise UserError(f"{self.path} is the journal of other settings; move it away and run again.")
