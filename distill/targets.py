"""The teacher's stored top-k probabilities: written once by `weight`, read and verified by `train`.

A folder of safetensors shards and a manifest. Row i of a sample is the teacher's distribution for the i-th
token of its response, at temperature 1: the ids of the k best tokens, their log-probabilities, and the
log of the mass of all others.
"""

import json
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from distill.errors import UserError
from distill.files import file_hash, read_json, value_hash, write_json
from distill.params import LocalTeacher
from distill.vocabulary import fingerprint

MANIFEST = "manifest.json"
SHARD_TOKENS = 65536


@dataclass(frozen=True)
class Source:
    """What the targets were made from; a reader that expects anything else is refused."""

    teacher: str
    model: str
    revision: str | None
    sha256: str | None
    tokenizer: str
    template: str
    data: str
    dtype: str
    top_k: int


@dataclass(frozen=True)
class Rows:
    """The teacher's distributions for one response of `tokens` tokens, in nats."""

    ids: torch.Tensor  # [tokens, k] int32, of the teacher's vocabulary
    log_probs: torch.Tensor  # [tokens, k] float16
    tail: torch.Tensor  # [tokens] float32, log of the mass outside the k


def source(teacher: LocalTeacher, tokenizer: Any, rows: list[dict[str, Any]], dtype: str, k: int) -> Source:
    """What targets of these rows by this teacher are made from."""
    return Source(
        teacher=teacher.name,
        model=teacher.model,
        revision=teacher.revision,
        sha256=teacher.sha256,
        tokenizer=fingerprint(tokenizer),
        template=value_hash(tokenizer.chat_template),
        data=value_hash([[row["id"], row["messages"], row["response"], row["finish_reason"]] for row in rows]),
        dtype=dtype,
        top_k=k,
    )


def top_k(logits: torch.Tensor, k: int) -> Rows:
    """The k best of each row of `logits` [tokens, vocab], best first, ties by id."""
    log_probs = logits.float().log_softmax(-1)
    best, ids = log_probs.topk(min(k, log_probs.shape[-1]), dim=-1)
    tail = torch.log1p(-best.exp().sum(-1).clamp(max=1.0))
    return Rows(ids.int().cpu(), best.half().cpu(), tail.float().cpu())


def write(folder: Path, source: Source, samples: Iterable[tuple[str, Rows]]) -> None:
    """Writes the shards and the manifest of (sample id, rows) into an existing folder."""
    index: dict[str, tuple[int, int, int]] = {}
    shards: list[dict[str, Any]] = []
    pending: list[Rows] = []
    start = 0
    for sample, rows in samples:
        index[sample] = (len(shards), start, len(rows.tail))
        pending.append(rows)
        start += len(rows.tail)
        if start >= SHARD_TOKENS:
            shards.append(_write_shard(folder, len(shards), pending))
            pending, start = [], 0
    if pending:
        shards.append(_write_shard(folder, len(shards), pending))
    write_json(folder / MANIFEST, {"source": asdict(source), "shards": shards, "samples": index})


def read(folder: Path, expected: Source) -> Iterator[tuple[str, Rows]]:
    """Yields (sample id, rows) in the order written, after checking the manifest and each shard's hash.

    Raises UserError where anything was made from another teacher, tokenizer, template or data than expected,
    or a shard is missing or broken.
    """
    manifest = read_json(folder / MANIFEST, "stage weight")
    wanted = asdict(expected)
    wrong = [key for key in wanted if manifest["source"].get(key) != wanted[key]]
    if wrong:
        lines = "\n".join(f"  {key}: {manifest['source'].get(key)} (expected {wanted[key]})" for key in wrong)
        raise UserError(f"{folder} holds targets of something else:\n{lines}\nRun `dvc repro weight`.")
    shards = [_read_shard(folder, shard) for shard in manifest["shards"]]
    for sample, (number, start, length) in manifest["samples"].items():
        tensors = shards[number]
        yield sample, Rows(*(tensors[name][start : start + length] for name in ("ids", "log_probs", "tail")))


def _write_shard(folder: Path, number: int, rows: list[Rows]) -> dict[str, Any]:
    path = folder / f"{number:05d}.safetensors"
    tensors = {name: torch.cat([getattr(part, name) for part in rows]) for name in ("ids", "log_probs", "tail")}
    try:
        save_file(tensors, path)
    except SafetensorError as error:  # a full disk, which other files report as an OSError
        raise UserError(
            f"{path} cannot be written ({error}). Free some space and run the same command again."
        ) from None
    return {"file": path.name, "tokens": len(tensors["tail"]), "sha256": file_hash(path)}


def _read_shard(folder: Path, shard: dict[str, Any]) -> dict[str, torch.Tensor]:
    path = folder / shard["file"]
    try:
        if file_hash(path) == shard["sha256"]:
            return load_file(path)
        reason = "is not the file that the manifest describes"
    except (OSError, SafetensorError, json.JSONDecodeError) as error:
        reason = f"cannot be read ({error})"
    raise UserError(f"{path} {reason}. Run `dvc pull`, or `dvc repro weight` to write it anew.")
