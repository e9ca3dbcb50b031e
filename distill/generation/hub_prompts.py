"""Prompts from a Hugging Face data set: a hub's at a pinned revision, or local files."""

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import datasets
import httpx2
import pandas as pd
from datasets.exceptions import DatasetsError

from distill.core.errors import UserError
from distill.core.files import Row, value_hash
from distill.core.text import is_text
from distill.generation.conversations import ROLES, read_messages
from distill.generation.prompts import Prompt
from distill.params.generate import BUILDERS, DatasetPrompts


def from_dataset(source: DatasetPrompts) -> tuple[list[Prompt], Counter[str]]:
    """The prompts by id, and the numbers of skipped rows by reason: those without a prompt or with a repeated one.

    An id is a hash of the messages: it does not change when rows move, and equal prompts are one. Raises UserError
    if the data set cannot be loaded, lacks a column, or has no prompt.
    """
    prompts: dict[str, Prompt] = {}
    skipped: Counter[str] = Counter()
    try:
        for row in _rows(source):
            prompt, reason = to_prompt(row, source)
            if prompt is None or prompt["id"] in prompts:
                skipped[reason or "a repeated prompt"] += 1
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
            f"`role` ({', '.join(ROLES)}) and `content`. {skipped.total()} rows were skipped: "
            f"{skipped_rows(skipped)}."
        )
    return [prompts[name] for name in sorted(prompts)], skipped


def skipped_rows(skipped: Counter[str]) -> str:
    """The reasons for which rows were skipped, the most frequent first: `3 with an empty message`."""
    return ", ".join(f"{count} with {reason}" for reason, count in skipped.most_common()) or "none"


def to_prompt(row: Row, source: DatasetPrompts) -> tuple[Prompt | None, str]:
    """The prompt of a row, or None and the reason why it has none. Raises UserError for an unknown column."""
    for column in (source.column, source.topic):
        if isinstance(column, str) and column not in row:
            raise UserError(f"data set {source.name!r} has no column {column!r}; it has {', '.join(sorted(row))}.")
    messages, reason = read_messages(row[source.column])
    if reason:
        return None, reason
    name = value_hash(messages)[:16]
    if isinstance(source.topic, int):
        topic = f"bucket-{int(name, 16) % source.topic}"
    else:
        topic = "" if row[source.topic] is None else str(row[source.topic]).strip()
    if not topic or not is_text(topic):
        return None, "no topic"
    return {"id": name, "topic": topic, "messages": messages}, ""


def _rows(source: DatasetPrompts) -> Iterator[Row]:
    """The rows in the data set's order, one at a time if it streams."""
    options: dict[str, Any] = {"name": source.config}
    if source.name in BUILDERS:
        path = Path(source.path)
        files = sorted(str(file) for file in path.rglob("*") if file.is_file()) if path.is_dir() else [str(path)]
        options["data_files"] = files  # together they are one split, train
        if source.name == "csv":
            options |= _csv_options(files)
    else:
        options["revision"] = source.revision
    datasets.disable_progress_bars()
    builder = datasets.load_dataset_builder(source.name, **options)
    if source.revision not in (None, builder.hash):  # offline, `datasets` takes any revision from its cache
        raise ConnectionError(f"the hub cannot be reached, and the cached copy is of revision {builder.hash}")
    if source.streaming:
        yield from builder.as_streaming_dataset(split=source.split)
    else:
        builder.download_and_prepare()
        yield from builder.as_dataset(split=source.split)


def _csv_options(files: list[str]) -> dict[str, Any]:
    """Options by which every value of CSV files stays a text: pandas would drop NA and read 007 as a number."""
    columns = {name for file in files for name in pd.read_csv(file, nrows=0).columns}
    return {"converters": dict.fromkeys(sorted(columns), str), "na_filter": False}
