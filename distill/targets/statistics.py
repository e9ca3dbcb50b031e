"""Statistics of the teacher's distributions at each token of a response: evidence for confidence measures.

They are one safetensors file in the folder of targets, in the order of the rows: entropies and margins of all tokens
one after the other, and means of each response. Its metadata have the hash of the ids of the rows and of the tensors.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from distill.core.errors import UserError
from distill.core.files import value_hash

FILE = "statistics.safetensors"


@dataclass(frozen=True)
class ResponseStatistics:
    """The teacher's distributions along one response, in nats.

    `margins` are the best log-probability less the second best; `with_prompt` and `without_prompt` the mean
    log-probability of the response's tokens after the prompt and without it, the latter None if it was not measured.
    """

    entropies: list[float]
    margins: list[float]
    with_prompt: float
    without_prompt: float | None = None


def response_statistics(logits: torch.Tensor, response: Sequence[int]) -> ResponseStatistics:
    """The statistics of the logits [tokens, vocab] that predict the response."""
    log_probs = logits.float().log_softmax(-1)
    best = log_probs.topk(2, dim=-1).values
    response_log_probs = log_probs.gather(1, torch.tensor(response, device=logits.device)[:, None])
    return ResponseStatistics(
        entropies=torch.special.entr(log_probs.exp()).sum(-1).tolist(),
        margins=(best[:, 0] - best[:, 1]).tolist(),
        with_prompt=float(response_log_probs.mean()),
    )


def write_statistics(
    folder: Path,
    ids: Sequence[str],
    statistics: Mapping[str, ResponseStatistics],
    without_prompt: Mapping[str, float] | None,
) -> None:
    """Writes the statistics of the rows `ids` in their order."""
    ordered = [statistics[name] for name in ids]
    tensors = {
        "lengths": torch.tensor([len(response.entropies) for response in ordered]),
        "entropies": torch.tensor([value for response in ordered for value in response.entropies]),
        "margins": torch.tensor([value for response in ordered for value in response.margins]),
        "with_prompt": torch.tensor([response.with_prompt for response in ordered], dtype=torch.float64),
    }
    if without_prompt is not None:
        tensors["without_prompt"] = torch.tensor([without_prompt[name] for name in ids], dtype=torch.float64)
    try:
        save_file(tensors, folder / FILE, metadata={"sha256": _content_hash(ids, tensors)})
    except SafetensorError as error:
        raise UserError(f"{folder / FILE} cannot be written ({error}). Free some space and run again.") from None


def read_statistics(folder: Path, ids: Sequence[str]) -> dict[str, ResponseStatistics]:
    """The statistics by row id. Raises UserError where they are missing, broken or of other rows."""
    path = folder / FILE
    try:
        with safe_open(path, "pt") as file:
            metadata, tensors = file.metadata() or {}, {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        lengths = tensors["lengths"].flatten().tolist()
    except (OSError, SafetensorError, KeyError) as error:
        raise UserError(f"{path} cannot be read ({error}). Run `dvc pull`, or `dvc repro targets`.") from None
    if len(lengths) != len(ids):
        raise UserError(f"{path} is of {len(lengths)} rows, but there are {len(ids)}. Run `dvc repro targets`.")
    if metadata.get("sha256") != _content_hash(ids, tensors):
        raise UserError(f"{path} was changed or is of other rows: its sha256 differs. Run `dvc repro targets`.")
    without_prompt = tensors["without_prompt"].tolist() if "without_prompt" in tensors else [None] * len(ids)
    columns = (
        [values.tolist() for values in tensors["entropies"].split(lengths)],
        [values.tolist() for values in tensors["margins"].split(lengths)],
        tensors["with_prompt"].tolist(),
        without_prompt,
    )
    return {name: ResponseStatistics(*values) for name, *values in zip(ids, *columns, strict=True)}


def _content_hash(ids: Sequence[str], tensors: Mapping[str, torch.Tensor]) -> str:
    """SHA-256 of the ids and of each tensor's name, dtype, shape and bytes."""
    contents = [
        [name, str(tensor.dtype), list(tensor.shape), hashlib.sha256(_bytes(tensor)).hexdigest()]
        for name, tensor in sorted(tensors.items())
    ]
    return value_hash([list(ids), contents])


def _bytes(tensor: torch.Tensor) -> bytes:
    return tensor.flatten().view(torch.uint8).numpy().tobytes()
