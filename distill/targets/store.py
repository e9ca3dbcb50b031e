"""What is stored of the teacher's distributions: written once by `weight`, read and verified by `train`.

A folder of safetensors shards and a manifest. Row i of a sample is the teacher's distribution for the i-th
token of its response, at temperature 1, in one of three forms: its k best tokens and the mass of all others
(`Rows`), tokens drawn from it (`Draws`), or what enters the teacher's output matrix (`States`). Where the teacher
is asked during training no sample is there. Of these whole distributions, stored or not, their sum over all tokens is
kept as well: what the teacher might have written, for the choice of the student's vocabulary. Hidden states of the
teacher's layers, where they are wanted, are in a folder of their own below, LAYERS, in the same form (`States`).
"""

import json
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from distill.core.errors import UserError
from distill.core.files import file_hash, read_json, value_hash, write_json
from distill.params.teachers import LocalTeacher
from distill.params.weight import Targets
from distill.targets.tokenizers import fingerprint

MANIFEST = "manifest.json"
EXPECTED = "expected.safetensors"
LAYERS = "layers"  # the folder of layers' states
WHOLE = ("hidden", "online", "on_policy")  # kinds that give the teacher's whole distribution
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
    kind: str
    size: int | None  # k, or the number of draws


@dataclass(frozen=True)
class Rows:
    """The teacher's distributions for one response of `tokens` tokens, in nats."""

    ids: torch.Tensor  # [tokens, k] int32, of the teacher's vocabulary
    log_probs: torch.Tensor  # [tokens, k] float16, or float32 where they come from draws; -inf in unused places
    tail: torch.Tensor  # [tokens] float32, log of the mass outside the k

    def __len__(self) -> int:
        return len(self.tail)


@dataclass(frozen=True)
class Draws:
    """Tokens drawn with replacement at each place of one response, all places one after the other."""

    ids: torch.Tensor  # [different ids of all places] int32, of the teacher's vocabulary
    counts: torch.Tensor  # [different ids of all places] uint8, how often each was drawn
    different: torch.Tensor  # [tokens] uint8, how many different ids each place has

    def __len__(self) -> int:
        return len(self.different)


@dataclass(frozen=True)
class States:
    """What enters the teacher's output matrix at each place of one response, or what some of its layers hand on."""

    states: torch.Tensor  # [tokens, width] or [tokens, layers, width], bfloat16

    def __len__(self) -> int:
        return len(self.states)


def source(teacher: LocalTeacher, tokenizer: Any, rows: list[dict[str, Any]], dtype: str, wanted: Targets) -> Source:
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
        kind=wanted.kind,
        size=wanted.top_k if wanted.kind == "stored" else wanted.draws if wanted.kind == "sampled" else None,
    )


def layers_source(source: Source, layers: Sequence[int]) -> Source:
    """The same for the hidden states of these layers of the teacher."""
    return replace(source, kind=f"layers {', '.join(map(str, layers))}", size=None)


def top_k(logits: torch.Tensor, k: int) -> Rows:
    """The k best of each row of `logits` [tokens, vocab], best first, ties by id."""
    log_probs = logits.float().log_softmax(-1)
    best, ids = log_probs.topk(min(k, log_probs.shape[-1]), dim=-1)
    tail = torch.log1p(-best.exp().sum(-1).clamp(max=1.0))
    return Rows(ids.int().cpu(), best.half().cpu(), tail.float().cpu())


def draw(logits: torch.Tensor, draws: int, seed: int) -> Draws:
    """So many tokens drawn with replacement from each row of `logits` [tokens, vocab].

    The shares of the draws are an unbiased estimate of the distribution, and so is the gradient of the forward KL to
    it, which no k best tokens give (Anshumann et al. 2025, random sampling KD).
    """
    generator = torch.Generator(device=logits.device).manual_seed(seed)
    drawn = torch.multinomial(logits.float().softmax(-1), draws, replacement=True, generator=generator).sort(-1).values
    new = torch.ones_like(drawn, dtype=torch.bool)
    new[:, 1:] = drawn[:, 1:] != drawn[:, :-1]
    starts = new.flatten().nonzero()[:, 0]
    counts = torch.diff(starts, append=starts.new_tensor([drawn.numel()]))
    return Draws(drawn[new].int().cpu(), counts.to(torch.uint8).cpu(), new.sum(-1).to(torch.uint8).cpu())


def shares(drawn: Draws, draws: int, width: int) -> Rows:
    """The shares of the draws as distributions without a tail, `width` places for each token."""
    different = drawn.different.long()
    first = different.cumsum(0) - different
    token = torch.arange(len(drawn)).repeat_interleave(different)
    place = torch.arange(len(token)) - first.repeat_interleave(different)
    ids = drawn.ids[first][:, None].repeat(1, width)  # an unused place repeats a token that is there
    log_probs = torch.full((len(drawn), width), -math.inf)
    ids[token, place] = drawn.ids
    log_probs[token, place] = (drawn.counts.float() / draws).log()
    return Rows(ids, log_probs, torch.full((len(drawn),), -math.inf))


def write(
    folder: Path,
    source: Source,
    samples: Iterable[tuple[str, Rows | Draws | States]],
    expected: torch.Tensor | None = None,
) -> None:
    """Writes the shards and the manifest of (sample id, rows) into an existing folder.

    `expected` [vocab], where it is given, is the sum of the teacher's distributions once the samples are through.
    """
    index: dict[str, tuple[int, int, int]] = {}
    shards: list[dict[str, Any]] = []
    pending: list[Rows | Draws | States] = []
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
    if expected is not None:
        save_file({"expected": expected}, folder / EXPECTED)
        manifest["expected"] = {"file": EXPECTED, "sha256": file_hash(folder / EXPECTED)}
    write_json(folder / MANIFEST, manifest)


def read_expected(folder: Path) -> torch.Tensor:
    """The sum of the teacher's distributions, [vocab]. Raises UserError where it is missing or broken."""
    return _read_shard(folder, read_json(folder / MANIFEST, "stage weight")["expected"])["expected"]


def read(folder: Path, expected: Source) -> Iterator[tuple[str, Rows | States]]:
    """Yields (sample id, rows) in the order written, after checking the manifest and each shard's hash.

    Draws come as the distributions that they estimate. Raises UserError where anything was made from another teacher,
    tokenizer, template or data than expected, or a shard is missing or broken.
    """
    manifest = read_json(folder / MANIFEST, "stage weight")
    wanted = asdict(expected)
    wrong = [key for key in wanted if manifest["source"].get(key) != wanted[key]]
    if wrong:
        lines = "\n".join(f"  {key}: {manifest['source'].get(key)} (expected {wanted[key]})" for key in wrong)
        raise UserError(f"{folder} holds targets of something else:\n{lines}\nRun `dvc repro weight`.")
    shards = [_read_shard(folder, shard) for shard in manifest["shards"]]
    if expected.kind == "sampled":
        assert expected.size is not None, "draws have a number"
        width = max((int(shard["different"].max()) for shard in shards), default=0)
        shards = [_as_rows(shard, expected.size, width) for shard in shards]
    form: Any = Rows if expected.kind in ("stored", "sampled") else States
    for sample, (number, start, length) in manifest["samples"].items():
        yield sample, form(*(shards[number][field.name][start : start + length] for field in fields(form)))


def _as_rows(shard: dict[str, torch.Tensor], draws: int, width: int) -> dict[str, torch.Tensor]:
    return vars(shares(Draws(shard["ids"], shard["counts"], shard["different"]), draws, width))


def _write_shard(folder: Path, number: int, rows: Sequence[Rows | Draws | States]) -> dict[str, Any]:
    path = folder / f"{number:05d}.safetensors"
    tensors = {field.name: torch.cat([getattr(part, field.name) for part in rows]) for field in fields(rows[0])}
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
    raise UserError(f"{path} {reason}. Run `dvc pull`, or `dvc repro weight` to write it anew.")


Stored = Iterable[tuple[str, Rows | States]]
