"""Prompts from a Hugging Face data set, of a hub at a pinned revision or of local files."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import datasets
import httpx2
from datasets.exceptions import DatasetsError

from distill.core.errors import UserError
from distill.core.files import value_hash
from distill.generation.prompts import ROLES, Prompt
from distill.params.generate import BUILDERS, DatasetPrompts

SHARE_GPT = {"system": "system", "human": "user", "gpt": "assistant"}  # the names of `from` there


def from_dataset(source: DatasetPrompts) -> tuple[list[Prompt], int]:
    """The prompts by id, and how many rows were passed over: without a prompt in them, or with an earlier one's.

    An id is a hash of the messages: it does not move when rows do, and equal prompts are one. Raises UserError
    where the data set cannot be had, lacks a column, or gives no prompt.
    """
    prompts: dict[str, Prompt] = {}
    passed_over = 0
    try:
        for row in _rows(source):
            prompt = as_prompt(row, source)
            if prompt is None or prompt["id"] in prompts:
                passed_over += 1
                continue
            prompts[prompt["id"]] = prompt
            if len(prompts) == source.limit:
                break
    except (DatasetsError, httpx2.HTTPError, OSError, ValueError) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".")
        raise UserError(
            f"data set {source.name!r} (config {source.config!r}, split {source.split!r}, revision "
            f"{source.revision!r}) cannot be read: {reason}. Check generate.prompts in params.yaml; a hub must be "
            "reachable from here."
        ) from None
    if not prompts:
        raise UserError(
            f"no row of data set {source.name!r} has a prompt in column {source.column!r}: a text, or messages with "
            f"`role` ({', '.join(ROLES)}) and `content`. {passed_over} rows were passed over."
        )
    return [prompts[name] for name in sorted(prompts)], passed_over


def as_prompt(row: dict[str, Any], source: DatasetPrompts) -> Prompt | None:
    """The prompt of a row; None where its column, or its topic's, is empty. Raises UserError for an unknown column."""
    for column in (source.column, source.topic):
        if isinstance(column, str) and column not in row:
            raise UserError(f"data set {source.name!r} has no column {column!r}; it has {', '.join(sorted(row))}.")
    messages = as_messages(row[source.column])
    if not messages:
        return None
    name = value_hash(messages)[:16]
    if isinstance(source.topic, int):
        topic = f"bucket-{int(name, 16) % source.topic}"
    else:
        topic = "" if row[source.topic] is None else str(row[source.topic]).strip()
    return {"id": name, "topic": topic, "messages": messages} if topic else None


def as_messages(value: Any) -> list[dict[str, str]]:
    """The messages that a column's value holds, up to the last of the user; [] where there are none.

    A text is one message of the user. A list has turns with `role` and `content`, or `from` and `value`.
    """
    if isinstance(value, str):
        return [{"role": "user", "content": value.strip()}] if value.strip() else []
    if not isinstance(value, list) or not all(isinstance(turn, dict) for turn in value):
        return []
    messages = []
    for turn in value:
        role = turn.get("role") or SHARE_GPT.get(turn.get("from") or "")
        content = turn.get("content") or turn.get("value")
        if role not in ROLES or not isinstance(content, str) or not content.strip():
            return []
        messages.append({"role": role, "content": content.strip()})
    while messages and messages[-1]["role"] != "user":
        messages.pop()
    return messages


def _rows(source: DatasetPrompts) -> Iterator[dict[str, Any]]:
    """The rows in the data set's order, one at a time where it streams."""
    options: dict[str, Any] = {"name": source.config}
    if source.name in BUILDERS:
        path = Path(source.path)
        files = sorted(str(file) for file in path.rglob("*") if file.is_file()) if path.is_dir() else [str(path)]
        options["data_files"] = files  # all of them make one split, train
    else:
        options["revision"] = source.revision
    datasets.disable_progress_bars()
    builder = datasets.load_dataset_builder(source.name, **options)
    if source.revision not in (None, builder.hash):  # `datasets` takes any revision from its cache then
        raise ConnectionError(f"the hub cannot be reached, and the copy that is kept here is of {builder.hash}")
    if source.streaming:
        yield from builder.as_streaming_dataset(split=source.split)
    else:
        builder.download_and_prepare()
        yield from builder.as_dataset(split=source.split)
