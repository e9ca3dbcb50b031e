"""Forward passes of batches without their padding, with logits at response positions only.

The output matrix costs the most in a small model. Its last feed-forward block is needed at these positions only too.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any

import torch
from transformers import PreTrainedModel

from distill.core.errors import UserError
from distill.modeling import packing
from distill.modeling.batches import PaddedBatch, padded_batches
from distill.modeling.chat import Example


def response_logits(model: PreTrainedModel, batch: PaddedBatch, wrapper: Any = None) -> torch.Tensor:
    """The logits at the positions of `response_mask`, [positions, vocab], row by row.

    The columns before the first difference between rows go through the model once, and padding does not (see
    `packing`). Gradients add up there, so that the result is that of the padded batch. The padded batch goes through a
    `wrapper` of the model (DDP, FSDP), which is called in its place, and through a model that cannot be packed.
    """
    return _run(model, batch, wrapper, logits_at)


def response_states(model: PreTrainedModel, batch: PaddedBatch) -> torch.Tensor:
    """The input of the output embedding at the same positions, [positions, width]."""
    states: list[torch.Tensor] = []
    _run(model, batch, None, partial(_states_at, states=states))
    return states[0]


def response_layers(
    model: PreTrainedModel, batch: PaddedBatch, layers: Sequence[int], wrapper: Any = None, logits: bool = True
) -> tuple[torch.Tensor, list[torch.Tensor]]:
    """`response_logits` (without `logits` no row of them), and the outputs of these layers at the same positions.

    Each layer's output is [positions, width], before any final norm.
    """
    outputs: dict[int, torch.Tensor] = {}
    at = partial(_layers_at, layers=layers, outputs=outputs, logits=logits)
    response = _run(model, batch, wrapper, at)
    return response, [outputs[layer] for layer in layers]


def per_example(
    model: PreTrainedModel,
    examples: Sequence[Example],
    batch_tokens: int,
    forward: Callable[[Any, PaddedBatch], torch.Tensor] = response_logits,
) -> Iterator[tuple[int, torch.Tensor]]:
    """Yields (index of the example, its rows of `forward(model, batch)`), longest example first.

    `forward` returns a row for each response token, in the order of `response_mask`.
    """
    for indices, batch in padded_batches(examples, batch_tokens):
        rows = forward(model, batch)
        yield from zip(indices, rows.split([len(examples[index].response) for index in indices]), strict=True)


def _run(model: PreTrainedModel, batch: PaddedBatch, wrapper: Any, at: Callable[..., Any]) -> torch.Tensor:
    """The model's logits inside `at(model, positions)`, of the batch packed where it can be."""
    batch = batch.to(model.device)
    if wrapper is not None or not packing.is_possible(model, batch.input_ids.shape[1]):
        with at(model, batch.response_mask):
            return (wrapper or model)(
                input_ids=batch.input_ids, attention_mask=batch.attention_mask, use_cache=False
            ).logits
    kind = model.device.type
    dtype = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else model.dtype
    packed = packing.pack(batch, dtype)
    with packing.attention(model), at(model, packed.response_mask), _feed_forward_at(model, packed.response_mask):
        return model(
            input_ids=packed.input_ids, position_ids=packed.position_ids, packed=packed, use_cache=False
        ).logits


@contextmanager
def logits_at(model: PreTrainedModel, positions: torch.Tensor) -> Iterator[None]:
    """Inside the block the model's `logits` are [positions chosen, vocab], row by row, instead of [batch, seq, vocab].

    `positions` is a mask [batch, seq]. Only the input of the output embedding is selected, so that what an
    architecture does to its logits afterwards (scaling, capping) still happens.
    """
    head = model.get_output_embeddings()
    indices, count = _padded_indices(positions)
    before = head.register_forward_pre_hook(
        lambda _, inputs: (inputs[0].flatten(0, 1).index_select(0, indices), *inputs[1:])
    )
    after = head.register_forward_hook(lambda _, inputs, output: output[:count])
    try:
        yield
    finally:
        before.remove()
        after.remove()


def layer_stack(model: PreTrainedModel) -> tuple[str, Any]:
    """The name and the list of a model's layers, such as `model.layers` or `transformer.h`.

    Raises UserError for a model without one list of them all.
    """
    total = model.config.get_text_config().num_hidden_layers
    for name, module in model.named_modules():
        if isinstance(module, torch.nn.ModuleList) and len(module) == total:
            return name, module
    raise UserError(f"A {model.config.model_type} model has no list of its {total} layers. Choose another model.")


def _last_feed_forward(model: PreTrainedModel) -> torch.nn.Module | None:
    """The feed-forward block of the last layer, which computes token by token; None for layers without one."""
    layers = getattr(model.get_decoder(), "layers", None)
    return getattr(layers[-1], "mlp", None) if layers else None


def response_only_parameters(model: PreTrainedModel) -> int:
    """Number of parameters used at response positions only: the last feed-forward block and the output matrix."""
    block = _last_feed_forward(model)
    num_block = 0 if block is None else sum(weight.numel() for weight in block.parameters())
    return num_block + model.get_output_embeddings().weight.numel()


@contextmanager
def _feed_forward_at(model: PreTrainedModel, positions: torch.Tensor) -> Iterator[None]:
    """Inside the `with` block the last feed-forward block is computed at `positions` only, and is 0 elsewhere.

    A compiled layer stays as it is, since it would be compiled again for each batch.
    """
    block = _last_feed_forward(model)
    if block is None or model.get_decoder().layers[-1]._compiled_call_impl is not None:
        yield
        return
    indices, count = _padded_indices(positions)

    def spread(states: torch.Tensor) -> torch.Tensor:
        zeros = states.new_zeros(positions.numel(), states.shape[-1])
        return zeros.index_copy(0, indices[:count], states[0, :count]).view(*positions.shape, -1)

    def after(_: Any, inputs: Any, output: Any) -> Any:
        return (spread(output[0]), *output[1:]) if isinstance(output, tuple) else spread(output)

    hooks = [
        block.register_forward_pre_hook(
            lambda _, inputs: (inputs[0].flatten(0, 1).index_select(0, indices)[None], *inputs[1:])
        ),
        block.register_forward_hook(after),
    ]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def _padded_indices(positions: torch.Tensor) -> tuple[torch.Tensor, int]:
    """The indices of a mask's positions in one row, the last repeated to the next TOKEN_STEP, and their number."""
    indices = positions.flatten().nonzero()[:, 0]
    return torch.cat([indices, indices[-1:].repeat(-len(indices) % packing.TOKEN_STEP)]), len(indices)


@contextmanager
def _states_at(model: PreTrainedModel, positions: torch.Tensor, states: list[torch.Tensor]) -> Iterator[None]:
    """Inside the block `states` gets the input of the output embedding at `positions`, which itself gets no row."""

    def take(_: Any, inputs: Any) -> Any:
        states.append(inputs[0][positions])
        return (states[-1][:0], *inputs[1:])

    hook = model.get_output_embeddings().register_forward_pre_hook(take)
    try:
        yield
    finally:
        hook.remove()


@contextmanager
def _layers_at(
    model: PreTrainedModel,
    positions: torch.Tensor,
    layers: Sequence[int],
    outputs: dict[int, torch.Tensor],
    logits: bool,
) -> Iterator[None]:
    """Inside the block `outputs` gets each layer's output at `positions`, by number, beside the logits."""

    def keep(layer: int, _: Any, inputs: Any, output: Any) -> None:
        outputs[layer] = (output[0] if isinstance(output, tuple) else output)[positions]

    with ExitStack() as stack:
        for layer in layers:
            hook = layer_stack(model)[1][layer].register_forward_hook(partial(keep, layer))
            stack.callback(hook.remove)
        stack.enter_context(logits_at(model, positions if logits else torch.zeros_like(positions)))
        yield
