"""Pruning: a student from some of a model's layers, MLP neurons, heads and embedding rows."""

import copy
import re
from collections.abc import Sequence
from typing import Any

import torch
from transformers import AutoModelForCausalLM, PreTrainedModel

from distill.core.errors import UserError
from distill.modeling.chat import Example
from distill.modeling.forward import layer_stack
from distill.params.init import PrunedStudent
from distill.students import importance
from distill.students.comparison import require_same_logits
from distill.students.pruned_config import KeptParts, pruned_config, remap_token_ids

ROWS = {
    **dict.fromkeys(("gate_proj", "up_proj"), ("neurons",)),
    "q_proj": ("queries",),
    **dict.fromkeys(("k_proj", "v_proj"), ("keys",)),
    "gate_up_proj": ("neurons", "neurons"),  # fused: one block of rows after the other
    "qkv_proj": ("queries", "keys", "keys"),
}
COLUMNS = {"down_proj": ("neurons",), "o_proj": ("queries",)}


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

    Its logits are those of the model that skips the other parts, at the kept ids. Raises UserError for an architecture
    that cannot be pruned like this.
    """
    try:
        student = _with_weights(model, parts, kept)
        require_same_logits(model, student, parts, kept)
    except (AttributeError, IndexError, KeyError, RuntimeError, TypeError, ValueError) as error:
        reason = " ".join(str(error).split())[:300]
        raise UserError(
            f"init: a {model.config.model_type} model cannot be pruned to these layers and sizes ({reason}). Keep all "
            "neurons and heads (intermediate_size and num_key_value_heads null), or choose another teacher."
        ) from None
    student.generation_config = remap_token_ids(copy.deepcopy(model.generation_config), kept)
    return student


def _with_weights(model: PreTrainedModel, parts: KeptParts, kept: Sequence[int]) -> PreTrainedModel:
    """The student with the model's weights."""
    config = pruned_config(model.config, parts, kept)
    student = AutoModelForCausalLM.from_config(config, dtype=torch.float32, trust_remote_code=False)
    source = model.state_dict()
    rows = torch.tensor(list(kept), device=model.device)
    matrices = [module for module in (model.get_input_embeddings(), model.get_output_embeddings()) if module]
    vocabularies = {f"{name}." for name, module in model.named_modules() if any(module is one for one in matrices)}
    layer_name = re.compile(rf"(?<=^{re.escape(layer_stack(model)[0])}\.)\d+(?=\.)")
    state = {}
    for name in student.state_dict():
        match = layer_name.search(name)
        layer = int(match.group()) if match else 0
        value = source[layer_name.sub(str(parts.layers[layer]), name)]
        in_vocabulary = name.startswith(tuple(vocabularies))
        state[name] = (value[rows] if in_vocabulary else _slice_weight(value, name, layer, parts, config)).float().cpu()
    student.load_state_dict(state)
    student.tie_weights()
    return student.eval()


def _slice_weight(value: torch.Tensor, name: str, layer: int, parts: KeptParts, config: Any) -> torch.Tensor:
    """A weight or bias of the kept layer number `layer`, its rows or columns those of the kept neurons and heads."""
    module, _, kind = name.rpartition(".")
    module = module.rpartition(".")[2]
    units = ROWS.get(module) or (COLUMNS.get(module) if kind == "weight" else None)
    if units is None or (parts.neurons if units[0] == "neurons" else parts.kv_heads) is None:
        return value
    dim = 0 if module in ROWS else 1
    return value.index_select(dim, _kept_indices(units, value.shape[dim], layer, parts, config).to(value.device))


def _kept_indices(units: tuple[str, ...], total: int, layer: int, parts: KeptParts, config: Any) -> torch.Tensor:
    """The indices, of `total`, of the kept neurons and heads in blocks of these units."""
    group = config.num_attention_heads // config.num_key_value_heads if parts.kv_heads else 1
    shares = [group if unit == "queries" else 1 for unit in units]
    start, blocks = 0, []
    for unit, share in zip(units, shares, strict=True):
        size = 1 if unit == "neurons" else share * config.head_dim
        own = parts.neurons if unit == "neurons" else parts.kv_heads
        assert own is not None
        blocks.append(start + (torch.tensor(own[layer])[:, None] * size + torch.arange(size)).flatten())
        start += total * share // sum(shares)
    return torch.cat(blocks)
