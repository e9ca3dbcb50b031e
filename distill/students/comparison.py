"""A pruned student compared with the model that skips the same layers, neurons and heads."""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any

import torch
from transformers import PreTrainedModel

from distill.core.errors import UserError
from distill.modeling.forward import layer_stack
from distill.students.pruned_config import KeptParts

NUM_TOKENS = 24  # of the text that both read
TOLERANCES = {torch.float32: 1e-3}  # largest difference of a logit, as a fraction of the largest logit
LOW_PRECISION = 0.1  # the same for a model in another dtype
WINDOWS = ("sliding_window", "attention_chunk_size")
SHORT_WINDOW = 4  # tokens, so that layers that see all of them differ from others in a short text


@torch.no_grad()
def require_same_logits(
    model: PreTrainedModel, student: PreTrainedModel, parts: KeptParts, kept: Sequence[int]
) -> None:
    """Raises UserError where the student's logits are not those of the model that skips what it lacks."""
    own = torch.linspace(0, len(kept) - 1, min(len(kept), NUM_TOKENS)).long()
    ids = torch.tensor(list(kept))
    training = model.training
    model.eval()
    with _short_window(model), _short_window(student):
        with _skipped(model, parts):
            expected = model(input_ids=ids[own][None].to(model.device), use_cache=False).logits.cpu()[..., ids].float()
        logits = student(input_ids=own[None].to(student.device), use_cache=False).logits.cpu()
    model.train(training)
    difference = float((logits - expected).abs().max() / expected.abs().max())
    if not difference <= TOLERANCES.get(model.dtype, LOW_PRECISION):
        raise UserError(
            f"init: a {model.config.model_type} model cannot be pruned like this: the student must have the logits of "
            f"the model that skips the same layers, neurons and heads, got a difference of {difference:.2g} of the "
            "largest. Layers of this architecture depend on their number or on each other. Choose another teacher, or "
            "keep more of this one."
        )


@contextmanager
def _skipped(model: PreTrainedModel, parts: KeptParts) -> Iterator[None]:
    """Inside the block the model has only these parts: other layers return their input, other units are 0."""
    _, layers = layer_stack(model)
    with ExitStack() as stack:
        for number, layer in enumerate(layers):
            if number not in parts.layers:
                stack.callback(layer.register_forward_hook(_input_again, with_kwargs=True).remove)
        for position, number in enumerate(parts.layers):
            if parts.neurons is not None:
                _silence(stack, layers[number].mlp.down_proj, parts.neurons[position], 1)
            if parts.kv_heads is not None:
                output = layers[number].self_attn.o_proj
                width = output.in_features // model.config.num_key_value_heads
                _silence(stack, output, parts.kv_heads[position], width)
        yield


def _silence(stack: ExitStack, module: Any, kept: list[int], width: int) -> None:
    """Sets the inputs of a linear layer to 0 but for the kept units, each of so many columns."""
    mask = torch.zeros(module.in_features // width, dtype=torch.bool)
    mask[kept] = True
    mask = mask.repeat_interleave(width).to(module.weight.device)
    stack.callback(module.register_forward_pre_hook(partial(_masked, mask=mask)).remove)


def _masked(_: Any, inputs: tuple[Any, ...], mask: torch.Tensor) -> tuple[Any, ...]:
    return (inputs[0] * mask, *inputs[1:])


def _input_again(_: Any, inputs: tuple[Any, ...], options: dict[str, Any], output: Any) -> Any:
    states = inputs[0] if inputs else options["hidden_states"]
    return (states, *output[1:]) if isinstance(output, tuple) else states


@contextmanager
def _short_window(model: PreTrainedModel) -> Iterator[None]:
    """Inside the block windows of attention are short."""
    config = model.config
    before = {name: getattr(config, name) for name in WINDOWS if getattr(config, name, None) is not None}
    for name, window in before.items():
        setattr(config, name, min(window, SHORT_WINDOW))
    try:
        yield
    finally:
        for name, window in before.items():
            setattr(config, name, window)
