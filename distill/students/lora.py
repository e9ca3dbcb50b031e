"""LoRA and QLoRA training; adapters are merged at the end.

LoRA (Hu et al. 2021): a linear layer x W^T becomes x W^T + (alpha / rank) dropout(x) A^T B^T, with W frozen, A [rank,
in] drawn at random and B [out, rank] zero, so that nothing has changed before the first step. QLoRA (Dettmers et al.
2023): meanwhile the frozen W are in 4-bit NormalFloat with doubly quantized scales. Merging adds (alpha / rank) B A to
the original W, which were never rounded, so that a student with a quantized base differs slightly from the one that was
trained.
"""

import importlib.util
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from peft import LoraConfig, LoraModel
from peft.tuners.lora import Linear as Adapted
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from distill.core.errors import UserError
from distill.losses import hidden_states
from distill.modeling.loading import parameter_count
from distill.params.train import Adapter

QUANTIZER = "bitsandbytes"  # optional: requirements-qlora.txt
NAME = "default"  # of the one adapter
Layers = dict[str, Any]  # torch's modules by their names in the model


def linear_layers(model: PreTrainedModel) -> Layers:
    """Every linear layer that can have an adapter: all but the output matrix, which may be the embedding."""
    projections = f"{hidden_states.PROJECTIONS}."
    output = model.get_output_embeddings()
    return {
        name: module
        for name, module in model.named_modules()
        if isinstance(module, torch.nn.Linear | Conv1D) and module is not output and not name.startswith(projections)
    }


def adapted_layers(model: PreTrainedModel, settings: Adapter) -> Layers:
    """The linear layers that get an adapter, by the last part of their names, several parts or all of it.

    Raises UserError for a name without a layer, or where the rank is above that of a layer's matrix.
    """
    layers = linear_layers(model)
    if settings.target_modules == "all-linear":
        chosen = layers
    else:
        for module in settings.target_modules:
            if not any(_is_named(name, module) for name in layers):
                known = ", ".join(dict.fromkeys(name.rpartition(".")[2] for name in layers))
                raise UserError(
                    f"train.adapter.target_modules: the student has no linear layer {module!r} (the output "
                    f"matrix does not count). It has {known}. Name some of these, or give all-linear."
                )
        chosen = {
            name: layer
            for name, layer in layers.items()
            if any(_is_named(name, module) for module in settings.target_modules)
        }
    name, narrowest = min(chosen.items(), key=lambda item: min(item[1].weight.shape))
    max_rank = min(narrowest.weight.shape)
    if settings.rank > max_rank:
        raise UserError(
            f"train.adapter.rank: must be at most {max_rank}, the rank of the matrix of {name} "
            f"{list(narrowest.weight.shape)}, got {settings.rank}. Give a lower rank, or other target_modules."
        )
    return chosen


def require_adapter(model: PreTrainedModel, settings: Adapter) -> None:
    """Raises UserError as `adapted_layers` does, and where the base cannot be quantized here."""
    adapted_layers(model, settings)
    if settings.quantization is None:
        return
    if importlib.util.find_spec(QUANTIZER) is None:
        raise UserError(
            f"train.adapter.quantization: {settings.quantization} needs {QUANTIZER}, which is not installed: "
            "`make qlora` installs it, or set it to null for LoRA on an unquantized base."
        )
    if conv_layers := [name for name, layer in linear_layers(model).items() if isinstance(layer, Conv1D)]:
        raise UserError(
            f"train.adapter.quantization: {conv_layers[0]} of a {model.config.model_type} student is a Conv1D, "
            "which cannot be quantized. Set it to null for LoRA on an unquantized base."
        )


def trained_weights(model: PreTrainedModel) -> dict[str, torch.nn.Parameter]:
    """The weights that are trained, by name."""
    return {name: weight for name, weight in model.named_parameters() if weight.requires_grad}


@contextmanager
def attached(model: PreTrainedModel, settings: Adapter | None, dtype: torch.dtype, seed: int) -> Iterator[None]:
    """Inside the block only an adapter of the model is trained; when it ends well that is merged. None: all is trained.

    A quantized base multiplies in `dtype`. The matrices A depend on the seed and the model alone. The
    projections of a hidden-state loss are trained too.
    """
    if settings is None:
        yield
        return
    chosen = adapted_layers(model, settings)
    config = LoraConfig(
        r=settings.rank,
        lora_alpha=settings.alpha,  # type: ignore[arg-type]  # any number serves
        lora_dropout=settings.dropout,
        target_modules=list(chosen),
        bias="none",
        fan_in_fan_out=any(isinstance(layer, Conv1D) for layer in chosen.values()),
    )
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        before = chosen if settings.quantization is None else _quantized(model, dtype)
        LoraModel(model, config, NAME)
    if hasattr(model, hidden_states.PROJECTIONS):
        getattr(model, hidden_states.PROJECTIONS).requires_grad_(True)
    yield
    _merge(model, before)


def trained_parameters(model: PreTrainedModel, settings: Adapter | None) -> int:
    """The number of weights that an adapter of these settings trains, or of all weights without one."""
    if settings is None:
        return parameter_count(model)
    return sum(settings.rank * sum(layer.weight.shape) for layer in adapted_layers(model, settings).values())


def adapter_record(model: PreTrainedModel, settings: Adapter) -> dict[str, Any]:
    """The record of a merged adapter: how many weights were trained, and its settings."""
    version = {} if settings.quantization is None else {QUANTIZER: importlib.metadata.version(QUANTIZER)}
    return {
        "trained_parameters": trained_parameters(model, settings),
        "adapter": settings.model_dump() | version,
    }


def _is_named(name: str, suffix: str) -> bool:
    return f".{name}".endswith(f".{suffix}")


def _quantized(model: PreTrainedModel, dtype: torch.dtype) -> Layers:
    """Replaces all linear layers by 4-bit ones; returns the original ones, in main memory."""
    nn = importlib.import_module(QUANTIZER).nn
    before = linear_layers(model)
    device = model.device
    for name, plain in before.items():
        packed = nn.Linear4bit(
            plain.in_features, plain.out_features, plain.bias is not None, compute_dtype=dtype, quant_type="nf4"
        )
        packed.load_state_dict(plain.state_dict())
        # else the first validation on a processor packs the weights again, which a resumed run would not have done
        packed.support_avx512bf16_for_cpu = False
        model.set_submodule(name, packed.to(device))
        plain.cpu()
    model.requires_grad_(False)
    return before


def _merge(model: PreTrainedModel, before: Layers) -> None:
    """Restores the layers from before the adapter, with its matrices added to them."""
    device = model.device
    for name, plain in before.items():
        layer: Any = model.get_submodule(name)
        if isinstance(layer, Adapted):
            plain.weight.data += layer.get_delta_weight(NAME).to(plain.weight)
        model.set_submodule(name, plain.to(device))
    del model.peft_config
    model.requires_grad_(True)
