"""Folders of stored targets: written once by stage targets, verified and read by init and train.

A folder has safetensors shards and a manifest with their hashes and its own. Online and on-policy targets store no
rows. Of full distributions, stored or not, the sum over all tokens is kept as well: the expected token counts, for the
choice of the student's vocabulary. Hidden states of the teacher's layers are in a folder of their own below, LAYERS.
"""

import json
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from transformers import PreTrainedTokenizerFast

from distill.core.errors import UserError
from distill.core.files import Row, file_hash, read_json, value_hash, write_json
from distill.modeling import loading
from distill.params.targets import Targets
from distill.params.teachers import LocalTeacher
from distill.targets.stored import Stored, StoredDraws, StoredStates, StoredTopK
from distill.targets.tokenizers import fingerprint

MANIFEST = "manifest.json"
EXPECTED_COUNTS = "expected_counts.safetensors"
LAYERS = "layers"  # the folder of the layers' hidden states
SHARD_TOKENS = 65536
WRITER = "stage targets"


@dataclass(frozen=True)
class Source:
    """What targets were made from; a reader that expects anything else is refused."""

    teacher: str
    model: str
    revision: str | None
    sha256: str | None
    tokenizer: str
    template: str
    data: str
    dtype: str
    kind: str
    size: int | None  # k, or the number of draws


def describe_source(
    teacher: LocalTeacher, tokenizer: PreTrainedTokenizerFast, rows: Sequence[Row], dtype: str, targets: Targets
) -> Source:
    """What targets of these rows by this teacher are made from."""
    return Source(
        teacher=teacher.name,
        model=teacher.model,
        revision=teacher.revision,
        sha256=loading.identity(teacher),
        tokenizer=fingerprint(tokenizer),
        template=value_hash(tokenizer.chat_template),
        data=value_hash([[row["id"], row["messages"], row["response"], row["finish_reason"]] for row in rows]),
        dtype=dtype,
        kind=targets.kind,
        size=targets.size,
    )


def describe_layers(source: Source, layers: Sequence[int]) -> Source:
    """The same for the hidden states of these layers of the teacher."""
    return replace(source, kind=f"layers {', '.join(map(str, layers))}", size=None)


def write_targets(
    folder: Path, source: Source, samples: Iterable[tuple[str, Stored]], expected_counts: torch.Tensor | None = None
) -> None:
    """Writes the shards and the manifest of (sample id, rows) into an existing folder.

    `expected_counts` [vocab] is the sum of the teacher's distributions once the samples are through.
    """
    index: dict[str, tuple[int, int, int]] = {}
    shards: list[dict[str, Any]] = []
    pending: list[Stored] = []
    start = 0
    for sample, rows in samples:
        index[sample] = (len(shards), start, len(rows))
        pending.append(rows)
        start += len(rows)
        if start >= SHARD_TOKENS:
            shards.append(_write_shard(folder, len(shards), pending))
            pending, start = [], 0
    if pending:
        shards.append(_write_shard(folder, len(shards), pending))
    manifest: dict[str, Any] = {"source": asdict(source), "shards": shards, "samples": index}
    if expected_counts is not None:
        save_file({"expected_counts": expected_counts}, folder / EXPECTED_COUNTS)
        manifest["expected_counts"] = {"file": EXPECTED_COUNTS, "sha256": file_hash(folder / EXPECTED_COUNTS)}
    write_json(folder / MANIFEST, manifest | {"sha256": value_hash(manifest)})


def read_expected_counts(folder: Path) -> torch.Tensor:
    """The sum of the teacher's distributions, [vocab]. Raises UserError where it is missing or broken."""
    return _read_shard(folder, _read_manifest(folder)["expected_counts"])["expected_counts"]


def read_targets(folder: Path, expected: Source) -> Iterator[tuple[str, StoredTopK | StoredStates]]:
    """Yields (sample id, rows) in the order written, after checking the manifest and each shard's hash.

    Draws come as the distributions that they estimate. Raises UserError where anything was made from another teacher,
    tokenizer, template or data than expected, or a shard is missing or broken.
    """
    manifest = _read_manifest(folder)
    values = asdict(expected)
    if wrong := [key for key in values if manifest["source"].get(key) != values[key]]:
        lines = "\n".join(f"  {key}: {manifest['source'].get(key)} (expected {values[key]})" for key in wrong)
        raise UserError(f"{folder} holds targets of another source:\n{lines}\nRun `dvc repro targets`.")
    shards = [_read_shard(folder, shard) for shard in manifest["shards"]]
    if expected.kind == "sampled":
        assert expected.size is not None, "draws have a number"
        width = max((int(shard["num_distinct"].max()) for shard in shards), default=0)
        shards = [vars(StoredDraws(**shard).frequencies(expected.size, width)) for shard in shards]
    form: type[StoredTopK | StoredStates] = StoredTopK if expected.size is not None else StoredStates
    for sample, (number, start, length) in manifest["samples"].items():
        yield sample, form(*(shards[number][field.name][start : start + length] for field in fields(form)))


def _read_manifest(folder: Path) -> dict[str, Any]:
    """The manifest without its own hash. Raises UserError where it is missing, broken or changed."""
    path = folder / MANIFEST
    manifest = read_json(path, WRITER)
    with suppress(ValueError):  # a changed manifest may hold what JSON has no bytes for
        if manifest.pop("sha256", None) == value_hash(manifest):
            return manifest
    raise UserError(
        f"{path} is not the manifest that {WRITER} wrote: its sha256 differs. Run `dvc pull`, or `dvc repro targets` "
        "to write it again."
    )


def _write_shard(folder: Path, number: int, rows: Sequence[Stored]) -> dict[str, Any]:
    path = folder / f"{number:05d}.safetensors"
    tensors = {field.name: torch.cat([getattr(record, field.name) for record in rows]) for field in fields(rows[0])}
    try:
        save_file(tensors, path)
    except SafetensorError as error:  # a full disk, which other files report as an OSError
        raise UserError(
            f"{path} cannot be written ({error}). Free some space and run the same command again."
        ) from None
    return {"file": path.name, "tokens": sum(map(len, rows)), "sha256": file_hash(path)}


def _read_shard(folder: Path, shard: dict[str, Any]) -> dict[str, torch.Tensor]:
    path = folder / shard["file"]
    try:
        if file_hash(path) == shard["sha256"]:
            return load_file(path)
        reason = "is not the file that the manifest describes"
    except (OSError, SafetensorError, json.JSONDecodeError) as error:
        reason = f"cannot be read ({error})"
    raise UserError(f"{path} {reason}. Run `dvc pull`, or `dvc repro targets` to write it again.")
