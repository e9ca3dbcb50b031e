"""Pruning: a student from some of a model's layers, MLP neurons, heads and embedding rows."""

import copy
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from transformers import AutoModelForCausalLM, PreTrainedModel

from distill.core.errors import UserError
from distill.modeling.chat import Example
from distill.params.init import PrunedStudent
from distill.students import importance

LAYER = re.compile(r"(?<=\blayers\.)\d+(?=\.)")
TOKEN_IDS = ("bos_token_id", "eos_token_id", "pad_token_id", "unk_token_id", "decoder_start_token_id")
ROWS = {"gate_proj": "neurons", "up_proj": "neurons", "q_proj": "queries", "k_proj": "keys", "v_proj": "keys"}
COLUMNS = {"down_proj": "neurons", "o_proj": "queries"}


@dataclass(frozen=True)
class KeptParts:
    """The ascending indices of what a student keeps; `neurons` and `kv_heads` have a list for each kept layer."""

    layers: list[int]
    neurons: list[list[int]] | None = None  # of the MLP; None: all
    kv_heads: list[list[int]] | None = None  # key-value heads, each with the query heads that share it; None: all


def select_parts(
    model: PreTrainedModel, sizes: PrunedStudent, examples: Sequence[Example], section: str = "init"
) -> KeptParts:
    """What to keep of the model, by importance on the examples where `sizes` needs one.

    Raises UserError where more is asked for than there is; `section` of params.yaml asks.
    """
    total = model.config.num_hidden_layers
    if sizes.layer_selection == "block_influence":
        number = _require_at_most(sizes.layers, total, "layers", section)
        layers = top_indices(importance.block_influence(model, examples), number)
    else:
        layers = select_layers(total, sizes.layers, sizes.layer_selection, section)
    if sizes.intermediate_size is None and sizes.num_key_value_heads is None:
        return KeptParts(layers)
    neurons, heads = importance.activations(model, examples)

    def kept(number: int | None, measured: torch.Tensor, name: str) -> list[list[int]] | None:
        if number is None:
            return None
        _require_at_most(number, measured.shape[1], name, section)
        return [top_indices(measured[layer].tolist(), number) for layer in layers]

    return KeptParts(
        layers,
        kept(sizes.intermediate_size, neurons, "intermediate_size"),
        kept(sizes.num_key_value_heads, heads, "num_key_value_heads"),
    )


def select_layers(total: int, layers: int | list[int], selection: str, section: str = "init") -> list[int]:
    """The indices, of 0 .. total - 1, of the layers to keep, by a `selection` that measures nothing.

    explicit: those in `layers`, which is a number otherwise. uniform: round(i (total - 1) / (layers - 1)), both ends
    included, as in DistilBERT (Sanh et al. 2019). first_and_last: a block at the beginning and one at the end, the
    first the larger by one of an odd number; deep models lose least without the layers between (Gromov et al. 2024).
    Raises UserError where more layers, or another layer, are asked for than there are.
    """
    if isinstance(layers, list):
        if layers[-1] >= total:
            raise UserError(f"{section}.layers: the teacher's layers are 0 to {total - 1}, got {layers}.")
        return layers
    layers = _require_at_most(layers, total, "layers", section)
    if selection == "first_and_last":
        return [*range((layers + 1) // 2), *range(total - layers // 2, total)]
    if layers == 1:
        return [0]
    return [(2 * number * (total - 1) + layers - 1) // (2 * (layers - 1)) for number in range(layers)]


def top_indices(values: Sequence[float], number: int) -> list[int]:
    """The indices of the `number` largest values, ascending; of equal ones the first."""
    return sorted(sorted(range(len(values)), key=lambda index: (-values[index], index))[:number])


def _require_at_most(number: Any, total: int, name: str, section: str) -> int:
    if number > total:
        raise UserError(f"{section}.{name}: must be at most {total}, the teacher's, got {number}.")
    return number


@torch.no_grad()
def prune(model: PreTrainedModel, parts: KeptParts, kept: Sequence[int]) -> PreTrainedModel:
    """A model of the same architecture with these parts and the embedding rows `kept`, in fp32.

    With all parts kept its logits are the model's at the kept ids.
    """
    config = _pruned_config(model.config, parts, kept)
    student = AutoModelForCausalLM.from_config(config, dtype=torch.float32, trust_remote_code=False)
    source = model.state_dict()
    rows = torch.tensor(list(kept), device=model.device)
    vocabularies = {
        _weight_name(model, module) for module in (model.get_input_embeddings(), model.get_output_embeddings())
    }
    state = {}
    for name in student.state_dict():
        match = LAYER.search(name)
        layer = int(match.group()) if match else 0
        value = source[LAYER.sub(str(parts.layers[layer]), name)]
        value = value[rows] if name in vocabularies else _slice_weight(value, name, layer, parts, config)
        state[name] = value.float().cpu()
    student.load_state_dict(state)
    student.tie_weights()
    student.generation_config = _remap_token_ids(copy.deepcopy(model.generation_config), kept)
    return student.eval()


def _slice_weight(value: torch.Tensor, name: str, layer: int, parts: KeptParts, config: Any) -> torch.Tensor:
    """A weight or bias of the kept layer number `layer`, its rows or columns those of the kept neurons and heads."""
    module, _, kind = name.rpartition(".")
    module = module.rpartition(".")[2]
    unit = ROWS.get(module) or (COLUMNS.get(module) if kind == "weight" else None)
    if unit is None or (parts.neurons if unit == "neurons" else parts.kv_heads) is None:
        return value
    if unit == "neurons":
        assert parts.neurons is not None
        index = torch.tensor(parts.neurons[layer])
    else:
        assert parts.kv_heads is not None
        group = config.num_attention_heads // config.num_key_value_heads if unit == "queries" else 1
        size = group * config.head_dim
        index = (torch.tensor(parts.kv_heads[layer])[:, None] * size + torch.arange(size)).flatten()
    return value.index_select(0 if module in ROWS else 1, index.to(value.device))


def _pruned_config(config: Any, parts: KeptParts, kept: Sequence[int]) -> Any:
    result = copy.deepcopy(config)
    total = config.num_hidden_layers
    for name, value in vars(config).items():
        if isinstance(value, list) and len(value) == total and name.startswith("layer"):
            setattr(result, name, [value[layer] for layer in parts.layers])
    result.num_hidden_layers = len(parts.layers)
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
    return _remap_token_ids(result, kept)


def _remap_token_ids(settings: Any, kept: Sequence[int]) -> Any:
    """The configuration with its token ids in the student's numbering; an id that was not kept becomes None."""
    new = {old: token for token, old in enumerate(kept)}
    for name in TOKEN_IDS:
        value = getattr(settings, name, None)
        if isinstance(value, int):
            setattr(settings, name, new.get(value))
        elif isinstance(value, list):
            setattr(settings, name, [new[old] for old in value if old in new])
    return settings


def _weight_name(model: PreTrainedModel, module: torch.nn.Module) -> str:
    return next(f"{name}.weight" for name, other in model.named_modules() if other is module)
