"""A student cut from the teacher: some of its layers, and the rows of its embeddings that are kept."""

import copy
import re
from collections.abc import Sequence
from typing import Any

import torch
from transformers import AutoModelForCausalLM

from distill.errors import UserError

LAYER = re.compile(r"(?<=\blayers\.)\d+(?=\.)")
TOKEN_IDS = ("bos_token_id", "eos_token_id", "pad_token_id", "unk_token_id", "decoder_start_token_id")


def kept_layers(total: int, layers: int | list[int]) -> list[int]:
    """The indices, of 0 .. total - 1, of the layers to keep: those listed, or so many spread evenly.

    Evenly means round(i (total - 1) / (layers - 1)), both ends included. Raises UserError where more layers,
    or another layer, are asked for than there are.
    """
    if isinstance(layers, list):
        if layers[-1] >= total:
            raise UserError(f"train.student.layers: the teacher's layers are 0 to {total - 1}, given {layers}.")
        return layers
    if layers > total:
        raise UserError(f"train.student.layers: {layers} is more than the teacher's {total} layers.")
    if layers == 1:
        return [0]
    return [(2 * place * (total - 1) + layers - 1) // (2 * (layers - 1)) for place in range(layers)]


@torch.no_grad()
def cut(teacher: Any, layers: int | list[int], kept: Sequence[int]) -> Any:
    """A model of the teacher's architecture with some of its layers and the embedding rows `kept`, in fp32.

    With all layers kept its
    logits are the teacher's at the kept ids.
    """
    chosen = kept_layers(teacher.config.num_hidden_layers, layers)
    config = _configuration(teacher.config, chosen, kept)
    student = AutoModelForCausalLM.from_config(config, dtype=torch.float32, trust_remote_code=False)
    source = teacher.state_dict()
    rows = torch.tensor(list(kept), device=teacher.device)
    vocabularies = {
        _weight_name(teacher, module) for module in (teacher.get_input_embeddings(), teacher.get_output_embeddings())
    }
    state = {}
    for name in student.state_dict():
        value = source[LAYER.sub(lambda found: str(chosen[int(found.group())]), name)]
        state[name] = (value[rows] if name in vocabularies else value).float().cpu()
    student.load_state_dict(state)
    student.tie_weights()
    student.generation_config = _remapped(copy.deepcopy(teacher.generation_config), kept)
    return student.eval()


def _configuration(config: Any, chosen: Sequence[int], kept: Sequence[int]) -> Any:
    result = copy.deepcopy(config)
    total = config.num_hidden_layers
    for name, value in vars(config).items():
        if isinstance(value, list) and len(value) == total and name.startswith("layer"):
            setattr(result, name, [value[place] for place in chosen])
    result.num_hidden_layers = len(chosen)
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
