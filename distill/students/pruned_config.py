"""The configuration of a pruned student: sizes, lists by layer and token ids."""

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from transformers import PretrainedConfig

from distill.core.errors import UserError

TOKEN_IDS = ("bos_token_id", "eos_token_id", "pad_token_id", "unk_token_id", "decoder_start_token_id")
# lists of layers' numbers; every other list as long as there are layers has a value for each of them
NUMBERED = ("mlp_only_layers", "moe_layers", "full_attn_idxs", "hybrid_layer_ids", "ple_layer_ids")


@dataclass(frozen=True)
class KeptParts:
    """The ascending indices of what a student keeps; `neurons` and `kv_heads` have a list for each kept layer."""

    layers: list[int]
    neurons: list[list[int]] | None = None  # of the MLP; None: all
    kv_heads: list[list[int]] | None = None  # key-value heads, each with the query heads that share it; None: all


def pruned_config(config: PretrainedConfig, parts: KeptParts, kept: Sequence[int]) -> PretrainedConfig:
    """The configuration of a model with these parts and tokens.

    Raises UserError where the saved configuration would mean other layers than this one.
    """
    result = copy.deepcopy(config)
    result.num_hidden_layers = len(parts.layers)
    lists = {name: value for name, value in vars(config).items() if isinstance(value, list) and name not in TOKEN_IDS}
    for name, value in lists.items():
        if name in NUMBERED:
            setattr(result, name, [parts.layers.index(layer) for layer in value if layer in parts.layers])
        elif name == "attention_types":  # GPT-Neo: pairs of a list of types and how often it is repeated
            types = [kind for kinds, times in value for kind in list(kinds) * times]
            setattr(result, name, [[[types[layer] for layer in parts.layers], 1]])
        elif len(value) == config.num_hidden_layers:
            setattr(result, name, [value[layer] for layer in parts.layers])
    if parts.neurons is not None:
        result.intermediate_size = len(parts.neurons[0])
    if parts.kv_heads is not None:
        # fewer heads of the old size: without head_dim a configuration takes hidden_size / num_attention_heads
        result.head_dim = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
        result.num_key_value_heads = len(parts.kv_heads[0])
        result.num_attention_heads = (
            config.num_attention_heads // config.num_key_value_heads * result.num_key_value_heads
        )
    result.vocab_size = len(kept)
    result.name_or_path = ""
    result.dtype = torch.float32
    remap_token_ids(result, kept)
    _require_saved_whole(result, lists)
    return result


def remap_token_ids(settings: Any, kept: Sequence[int]) -> Any:
    """The configuration with its token ids in the student's numbering; an id that was not kept becomes None."""
    new = {old: token for token, old in enumerate(kept)}
    for name in TOKEN_IDS:
        value = getattr(settings, name, None)
        if isinstance(value, int):
            setattr(settings, name, new.get(value))
        elif isinstance(value, list):
            setattr(settings, name, [new[old] for old in value if old in new])
    return settings


def _require_saved_whole(config: PretrainedConfig, lists: dict[str, Any]) -> None:
    """Raises UserError where lists differ once the configuration was saved and loaded."""
    loaded = type(config).from_dict(config.to_dict())
    if changed := [name for name in lists if getattr(loaded, name) != getattr(config, name)]:
        raise UserError(
            f"init: a {config.model_type} model cannot be pruned: its configuration computes {', '.join(changed)} from "
            "the numbers of the layers. Choose another teacher, or keep all layers."
        )
