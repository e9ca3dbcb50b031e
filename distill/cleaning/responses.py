"""The rows of data/raw/responses.jsonl: checked once, then read from the disk one at a time."""

import hashlib
import json
from array import array
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Self

import numpy as np
from pydantic import ValidationError

from distill.core.errors import UserError
from distill.core.files import rows_with_offsets
from distill.core.response_row import ResponseRow
from distill.core.text import normalise

Row = dict[str, Any]


class Responses:
    """The rows of a file in order of prompt, teacher and sample, whatever their order in it.

    Memory holds 12 bytes a row, where its line starts and which of `topics` it has; a row is read when it is
    asked for. A file in another order than that, which `generate` never writes, is sorted in memory by its ids.
    """

    def __init__(self, path: Path) -> None:
        """Reads and checks the whole file. Raises UserError for a broken row, a repeated id, and for no rows."""
        self.path = path
        starts, ids, topics = array("Q"), array("Q"), array("I")
        names: dict[str, int] = {}
        ordered, last = True, ("", "", 0)
        for number, (start, row) in enumerate(rows_with_offsets(path, "stage generate"), start=1):
            _check(row, f"{path}, line {number} (id {row.get('id')!r})")
            starts.append(start)
            ids.append(int.from_bytes(hashlib.blake2b(row["id"].encode(), digest_size=8).digest()))
            # a topic in another case or with other spaces is the same
            topics.append(names.setdefault(normalise(row["topic"]), len(names)))
            ordered, last = ordered and last <= _key(row), _key(row)
        if not starts:
            raise UserError(f"{path} has no rows: is the prompts file (params generate.prompts) empty?")
        self._starts, self._file = np.frombuffer(starts, np.uint64), path.open("rb")
        self.topics, self.topic_of = list(names), np.frombuffer(topics, np.uint32)
        try:
            self._refuse_repeated(np.frombuffer(ids, np.uint64))
        except UserError:
            self._file.close()
            raise
        if not ordered:
            places = sorted(range(len(starts)), key=[_key(row) for row in self].__getitem__)
            self._starts, self.topic_of = self._starts[places], self.topic_of[places]

    def __len__(self) -> int:
        return len(self._starts)

    def __getitem__(self, place: int) -> Row:
        self._file.seek(int(self._starts[place]))
        return json.loads(self._file.readline())

    def __iter__(self) -> Iterator[Row]:
        return (self[place] for place in range(len(self)))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._file.close()

    def _refuse_repeated(self, ids: np.ndarray) -> None:
        sorted_ids = np.sort(ids)
        if not (sorted_ids[1:] == sorted_ids[:-1]).any():
            return
        order = np.argsort(ids, kind="stable")
        for place in np.sort(order[1:][ids[order[1:]] == ids[order[:-1]]]).tolist():
            earlier = int(np.flatnonzero(ids == ids[place])[0])
            if self[place]["id"] == self[earlier]["id"]:
                raise UserError(
                    f"{self.path}, line {place + 1} (id {self[place]['id']!r}) has the id of an earlier line; each "
                    "prompt, teacher and sample has one row."
                )


def _key(row: Row) -> tuple[str, str, int]:
    return row["prompt_id"], row["teacher"], row.get("sample", 0)


def _check(row: Row, where: str) -> None:
    try:
        ResponseRow.model_validate(row, strict=True)
    except ValidationError as error:
        raise UserError(
            f"{where} is broken: {_described(error)}. Run `dvc repro --force --single-item generate` to write the "
            "file anew; no teacher is asked again what it answered."
        ) from None


def _described(error: ValidationError) -> str:
    """The first mistakes of a row: `messages.0.content: field required; logprobs.3: input should be ...`."""
    mistakes = [(".".join(map(str, one["loc"])), one["msg"]) for one in error.errors(include_url=False)]
    more = f"; and {len(mistakes) - 3} more" if len(mistakes) > 3 else ""
    return "; ".join(f"{path}: {text[0].lower()}{text[1:]}" for path, text in mistakes[:3]) + more
