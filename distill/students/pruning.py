"""A student cut from the teacher: some of its layers, of each some neurons and heads, some rows of its embeddings."""

import copy
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from transformers import AutoModelForCausalLM

from distill.core.errors import UserError
from distill.modeling.chat import Example
from distill.params.students import TeacherStudent
from distill.students import importance

LAYER = re.compile(r"(?<=\blayers\.)\d+(?=\.)")
TOKEN_IDS = ("bos_token_id", "eos_token_id", "pad_token_id", "unk_token_id", "decoder_start_token_id")
ROWS = {"gate_proj": "neurons", "up_proj": "neurons", "q_proj": "queries", "k_proj": "keys", "v_proj": "keys"}
COLUMNS = {"down_proj": "neurons", "o_proj": "queries"}


@dataclass(frozen=True)
class Parts:
    """The indices, ascending, of what a student keeps; `neurons` and `kv_heads` have a list for each kept layer."""

    layers: list[int]
    neurons: list[list[int]] | None = None  # of the MLP; None: all
    kv_heads: list[list[int]] | None = None  # key-value heads, each with the query heads that share it; None: all


def choose(teacher: Any, choice: TeacherStudent, examples: Sequence[Example], section: str = "train.student") -> Parts:
    """What to keep of the teacher by `choice`, measured on the examples where it asks for a measure.

    Raises UserError where more is asked for than there is; `section` of params.yaml is what asks.
    """
    total = teacher.config.num_hidden_layers
    if choice.layer_choice == "block_influence":
        layers = most(importance.block_influence(teacher, examples), _number(choice.layers, total, "layers", section))
    else:
        layers = kept_layers(total, choice.layers, choice.layer_choice, section)
    if choice.neurons is None and choice.kv_heads is None:
        return Parts(layers)
    neurons, heads = importance.activations(teacher, examples)
    kept = []
    for number, measured, name in ((choice.neurons, neurons, "neurons"), (choice.kv_heads, heads, "kv_heads")):
        if number is not None:
            _number(number, measured.shape[1], name, section)
        kept.append(None if number is None else [most(measured[layer].tolist(), number) for layer in layers])
    return Parts(layers, *kept)


def kept_layers(total: int, layers: int | list[int], choice: str, section: str = "train.student") -> list[int]:
    """The indices, of 0 .. total - 1, of the layers to keep, by a `choice` that measures nothing.

    listed: those in `layers`, which is a number otherwise. evenly: round(i (total - 1) / (layers - 1)), both ends
    included, as in DistilBERT (Sanh et al. 2019). first_and_last: a block at the beginning and one at the end, the
    first the larger by one of an odd number; what goes is what deep models are least hurt by (Gromov et al. 2024).
    Raises UserError where more layers, or another layer, are asked for than there are.
    """
    if isinstance(layers, list):
        if layers[-1] >= total:
            raise UserError(f"{section}.layers: the teacher's layers are 0 to {total - 1}, given {layers}.")
        return layers
    _number(layers, total, "layers", section)
    if choice == "first_and_last":
        return [*range((layers + 1) // 2), *range(total - layers // 2, total)]
    if layers == 1:
        return [0]
    return [(2 * place * (total - 1) + layers - 1) // (2 * (layers - 1)) for place in range(layers)]


def most(values: Sequence[float], number: int) -> list[int]:
    """The places of the `number` largest values, ascending; of equal ones the first."""
    return sorted(sorted(range(len(values)), key=lambda place: (-values[place], place))[:number])


def _number(wanted: Any, total: int, name: str, section: str) -> int:
    if wanted > total:
        raise UserError(f"{section}.{name}: {wanted} is more than the teacher's {total} {name}.")
    return wanted


@torch.no_grad()
def cut(teacher: Any, parts: Parts, kept: Sequence[int]) -> Any:
    """A model of the teacher's architecture with these parts and the embedding rows `kept`, in fp32.

    With all parts kept its logits are the teacher's at the kept ids.
    """
    config = _configuration(teacher.config, parts, kept)
    student = AutoModelForCausalLM.from_config(config, dtype=torch.float32, trust_remote_code=False)
    source = teacher.state_dict()
    rows = torch.tensor(list(kept), device=teacher.device)
    vocabularies = {
        _weight_name(teacher, module) for module in (teacher.get_input_embeddings(), teacher.get_output_embeddings())
    }
    state = {}
    for name in student.state_dict():
        found = LAYER.search(name)
        place = int(found.group()) if found else 0
        value = source[LAYER.sub(str(parts.layers[place]), name)]
        value = value[rows] if name in vocabularies else _narrowed(value, name, place, parts, config)
        state[name] = value.float().cpu()
    student.load_state_dict(state)
    student.tie_weights()
    student.generation_config = _remapped(copy.deepcopy(teacher.generation_config), kept)
    return student.eval()


def _narrowed(value: torch.Tensor, name: str, place: int, parts: Parts, config: Any) -> torch.Tensor:
    """A weight or bias of the layer at `place` with the rows or columns of what is kept of its neurons and heads."""
    module, _, kind = name.rpartition(".")
    module = module.rpartition(".")[2]
    unit = ROWS.get(module) or (COLUMNS.get(module) if kind == "weight" else None)
    if unit is None or (parts.neurons if unit == "neurons" else parts.kv_heads) is None:
        return value
    if unit == "neurons":
        assert parts.neurons is not None
        index = torch.tensor(parts.neurons[place])
    else:
        assert parts.kv_heads is not None
        share = config.num_attention_heads // config.num_key_value_heads if unit == "queries" else 1
        size = share * config.head_dim
        index = (torch.tensor(parts.kv_heads[place])[:, None] * size + torch.arange(size)).flatten()
    return value.index_select(0 if module in ROWS else 1, index.to(value.device))


def _configuration(config: Any, parts: Parts, kept: Sequence[int]) -> Any:
    result = copy.deepcopy(config)
    total = config.num_hidden_layers
    for name, value in vars(config).items():
        if isinstance(value, list) and len(value) == total and name.startswith("layer"):
            setattr(result, name, [value[place] for place in parts.layers])
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
    return _remapped(result, kept)


def _remapped(settings: Any, kept: Sequence[int]) -> Any:
    """The configuration with its token ids in the student's numbering; an id that was not kept becomes None."""
    new = {old: place for place, old in enumerate(kept)}
    for name in TOKEN_IDS:
        value = getattr(settings, name, None)
        if isinstance(value, int):
            setattr(settings, name, new.get(value))
        elif isinstance(value, list):
            setattr(settings, name, [new[old] for old in value if old in new])
    return settings


def _weight_name(model: Any, module: Any) -> str:
    return next(f"{name}.weight" for name, other in model.named_modules() if other is module)
