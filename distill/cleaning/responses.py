"""Rows of data/raw/responses.jsonl, checked once and then read from the disk."""

import hashlib
import json
from array import array
from collections.abc import Iterator
from pathlib import Path
from typing import Self

import numpy as np
from pydantic import ValidationError

from distill.core.errors import UserError
from distill.core.files import Row, rows_with_offsets
from distill.core.response_row import ResponseRow
from distill.core.text import normalise


class Responses:
    """The rows of a file in order of prompt, teacher and sample.

    Memory holds 12 bytes a row: the offset of its line and its topic as an index in `topics`. A row is read on
    access. A file in another order, which `generate` never writes, is sorted in memory by its ids.
    """

    def __init__(self, path: Path) -> None:
        """Read and check all rows. Raises UserError for a broken row, a repeated id, and for no rows."""
        self.path = path
        offsets, ids, topic_ids = array("Q"), array("Q"), array("I")
        topics: dict[str, int] = {}
        is_sorted, previous = True, ("", "", 0)
        for number, (offset, row) in enumerate(rows_with_offsets(path, "stage generate"), start=1):
            _check(row, f"{path}, line {number} (id {row.get('id')!r})")
            offsets.append(offset)
            ids.append(int.from_bytes(hashlib.blake2b(row["id"].encode(), digest_size=8).digest()))
            # a topic in another case or with other spaces is the same
            topic_ids.append(topics.setdefault(normalise(row["topic"]), len(topics)))
            is_sorted, previous = is_sorted and previous <= _sort_key(row), _sort_key(row)
        if not offsets:
            raise UserError(f"{path} has no rows. The prompts of generate.prompts must not be empty.")
        self._offsets, self._file = np.frombuffer(offsets, np.uint64), path.open("rb")
        self.topics, self.topic_ids = list(topics), np.frombuffer(topic_ids, np.uint32)
        try:
            self._require_unique(np.frombuffer(ids, np.uint64))
        except UserError:
            self._file.close()
            raise
        if not is_sorted:
            order = sorted(range(len(offsets)), key=[_sort_key(row) for row in self].__getitem__)
            self._offsets, self.topic_ids = self._offsets[order], self.topic_ids[order]

    def __len__(self) -> int:
        return len(self._offsets)

    def __getitem__(self, position: int) -> Row:
        self._file.seek(int(self._offsets[position]))
        return json.loads(self._file.readline())

    def __iter__(self) -> Iterator[Row]:
        return (self[position] for position in range(len(self)))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._file.close()

    def _require_unique(self, ids: np.ndarray) -> None:
        sorted_ids = np.sort(ids)
        if not (sorted_ids[1:] == sorted_ids[:-1]).any():
            return
        order = np.argsort(ids, kind="stable")
        for position in np.sort(order[1:][ids[order[1:]] == ids[order[:-1]]]).tolist():
            earlier = int(np.flatnonzero(ids == ids[position])[0])
            if self[position]["id"] == self[earlier]["id"]:
                raise UserError(
                    f"{self.path}, line {position + 1} (id {self[position]['id']!r}) has the id of an earlier "
                    "line. Each prompt, teacher and sample must have one row."
                )


def _sort_key(row: Row) -> tuple[str, str, int]:
    return row["prompt_id"], row["teacher"], row.get("sample", 0)


def _check(row: Row, where: str) -> None:
    try:
        ResponseRow.model_validate(row, strict=True)
    except ValidationError as error:
        raise UserError(
            f"{where} is broken: {_describe(error)}. Run `dvc repro --force --single-item generate` to write the "
            "file again; responses in the journals are not paid for again."
        ) from None


def _describe(error: ValidationError) -> str:
    """The first mistakes of a row: `messages.0.content: field required; logprobs.3: input should be ...`."""
    mistakes = [(".".join(map(str, mistake["loc"])), mistake["msg"]) for mistake in error.errors(include_url=False)]
    more = f"; and {len(mistakes) - 3} more" if len(mistakes) > 3 else ""
    return "; ".join(f"{path}: {text[0].lower()}{text[1:]}" for path, text in mistakes[:3]) + more
