"""Checks of a model's files and weights: what loads must be whole, finite and able to predict."""

import json
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel

from distill.core.errors import UserError

MAX_REASON = 300  # characters of a loader's error that a message shows


def load_error(model: str, error: Exception) -> UserError:
    """One message for whatever a loader raised."""
    reason = " ".join(str(error).split())[:MAX_REASON] or type(error).__name__
    return UserError(
        f"model {model!r} cannot be loaded ({reason}). Give a folder with config.json, tokenizer.json and safetensors, "
        "a .gguf file, or a hub name that this machine can reach."
    )


def require_files_inside(folder: Path) -> None:
    """Raises ValueError where the index of a folder's weights names a file that is not in the folder."""
    for index in folder.glob("*.index.json"):
        files = set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values())
        if outside := sorted(name for name in files if Path(name).name != name or name in ("", ".", "..")):
            raise ValueError(f"{index.name} must name files in its folder, got {outside[0]!r}")


def not_finite(network: PreTrainedModel) -> list[str]:
    """Names of the weights with a value that is not finite."""
    return [name for name, weight in network.named_parameters() if not weight.isfinite().all()]


def require_all_weights(model: str, network: PreTrainedModel, report: dict[str, Any]) -> None:
    """Raises UserError for weights that were filled up at random, left out, or are not finite."""
    faults = {
        "missing": sorted(report["missing_keys"]),
        "unexpected": sorted(report["unexpected_keys"]),
        "of another shape": sorted(str(key) for key in report.get("mismatched_keys", ())),
        "not finite": not_finite(network),
    }
    for fault, names in faults.items():
        if names:
            raise UserError(
                f"model {model!r} must have exactly the weights of its config.json, all finite, got {len(names)} "
                f"{fault}: {', '.join(names[:3])}. Give a complete checkpoint."
            )


@torch.no_grad()
def require_logits(model: str, network: PreTrainedModel, num_tokens: int) -> None:
    """Raises UserError for a model whose weights give no predictions: nan, infinity, or one value for all tokens."""
    size = network.config.get_text_config().vocab_size
    if num_tokens > size:
        raise UserError(f"model {model!r} must embed the {num_tokens} tokens of its tokenizer, got {size} rows.")
    logits = network(input_ids=torch.arange(2, device=network.device)[None], use_cache=False).logits
    if not logits.float().logsumexp(-1).isfinite().all() or (logits == logits[..., :1]).all():
        raise UserError(
            f"model {model!r} must predict tokens, got logits of nan, infinity or one value. Check its weights."
        )
