"""Logits at the response's positions only (or what they are made of), of a batch without its padding.

The vocabulary's matmul is the dearest of a small model, and of its last layer nothing else but these positions is
needed either.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any

import torch

from distill.modeling import packing


def response_logits(
    model: Any, ids: torch.Tensor, mask: torch.Tensor, predicts: torch.Tensor, wrapper: Any = None
) -> torch.Tensor:
    """The logits at the positions that `predicts` marks, [positions marked, vocab], read row by row.

    `ids`, `mask` and `predicts` are [batch, seq], padded on the right (see `batches.padded`). The columns before
    the first difference between rows go through the model once, and padding does not (see `packing`); gradients add
    up there, so that the result is that of the whole batch. The whole batch goes through a `wrapper` of the model
    (DDP, FSDP), which is called in its place, and through a model that cannot be packed.
    """
    return _run(model, ids, mask, predicts, wrapper, logits_at)


def response_states(model: Any, ids: torch.Tensor, mask: torch.Tensor, predicts: torch.Tensor) -> torch.Tensor:
    """What enters the output embedding at these positions, [positions marked, width], as `response_logits` has it."""
    found: list[torch.Tensor] = []
    _run(model, ids, mask, predicts, None, partial(_states_at, found=found))
    return found[0]


def response_layers(
    model: Any,
    ids: torch.Tensor,
    mask: torch.Tensor,
    predicts: torch.Tensor,
    layers: Sequence[int],
    wrapper: Any = None,
    logits: bool = True,
) -> tuple[torch.Tensor, list[torch.Tensor]]:
    """`response_logits` (without `logits` no row of them), and what these layers hand on at the same positions.

    Of each layer it is [positions marked, width], before any final norm.
    """
    outputs: dict[int, torch.Tensor] = {}
    at = partial(_layers_at, layers=layers, outputs=outputs, logits=logits)
    found = _run(model, ids, mask, predicts, wrapper, at)
    return found, [outputs[layer] for layer in layers]


def _run(
    model: Any, ids: torch.Tensor, mask: torch.Tensor, predicts: torch.Tensor, wrapper: Any, at: Callable[..., Any]
) -> torch.Tensor:
    """The model's logits inside `at(model, positions)`, of the batch packed where it can be."""
    ids, mask, predicts = (part.to(model.device) for part in (ids, mask, predicts))
    if wrapper is not None or not packing.is_possible(model, ids.shape[1]):
        with at(model, predicts):
            return (wrapper or model)(input_ids=ids, attention_mask=mask, use_cache=False).logits
    kind = model.device.type
    dtype = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else model.dtype
    packed = packing.pack(ids, mask, predicts, dtype)
    with packing.attention(model), at(model, packed.predicts), _feed_forward_at(model, packed.predicts):
        return model(input_ids=packed.ids, position_ids=packed.positions, packed=packed, use_cache=False).logits


@contextmanager
def logits_at(model: Any, positions: torch.Tensor) -> Iterator[None]:
    """Inside the block the model's `logits` are [positions chosen, vocab], row by row, instead of [batch, seq, vocab].

    `positions` is a mask [batch, seq]. Only the input of the output embedding is selected, so that what an
    architecture does to its logits afterwards (scaling, capping) still happens.
    """
    head = model.get_output_embeddings()
    places, count = _places(positions)
    before = head.register_forward_pre_hook(
        lambda _, inputs: (inputs[0].flatten(0, 1).index_select(0, places), *inputs[1:])
    )
    after = head.register_forward_hook(lambda _, inputs, output: output[:count])
    try:
        yield
    finally:
        before.remove()
        after.remove()


def last_feed_forward(model: Any) -> Any:
    """The feed-forward part of the last layer, which computes token by token; None where a layer has none."""
    layers = getattr(model.get_decoder(), "layers", None)
    return getattr(layers[-1], "mlp", None) if layers else None


def late_parameters(model: Any) -> int:
    """How many parameters are needed only for tokens that are predicted: of that part and of the output matrix."""
    part = last_feed_forward(model)
    feed_forward = 0 if part is None else sum(weight.numel() for weight in part.parameters())
    return feed_forward + model.get_output_embeddings().weight.numel()


@contextmanager
def _feed_forward_at(model: Any, positions: torch.Tensor) -> Iterator[None]:
    """Inside the block the last feed-forward part is computed at `positions` only: its result is read nowhere else.

    There it is 0. In a compiled layer nothing changes, since that would be compiled anew for each batch.
    """
    part = last_feed_forward(model)
    if part is None or model.get_decoder().layers[-1]._compiled_call_impl is not None:
        yield
        return
    places, count = _places(positions)

    def spread(found: torch.Tensor) -> torch.Tensor:
        nothing = found.new_zeros(positions.numel(), found.shape[-1])
        return nothing.index_copy(0, places[:count], found[0, :count]).view(*positions.shape, -1)

    def after(_: Any, inputs: Any, output: Any) -> Any:
        return (spread(output[0]), *output[1:]) if isinstance(output, tuple) else spread(output)

    hooks = [
        part.register_forward_pre_hook(
            lambda _, inputs: (inputs[0].flatten(0, 1).index_select(0, places)[None], *inputs[1:])
        ),
        part.register_forward_hook(after),
    ]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def _places(positions: torch.Tensor) -> tuple[torch.Tensor, int]:
    """The places of a mask in one row, of which the last is repeated to the next TOKEN_STEP, and how many there are."""
    places = positions.flatten().nonzero()[:, 0]
    return torch.cat([places, places[-1:].repeat(-len(places) % packing.TOKEN_STEP)]), len(places)


@contextmanager
def _states_at(model: Any, positions: torch.Tensor, found: list[torch.Tensor]) -> Iterator[None]:
    """Inside the block the model's output embedding gets no row, and what it would have got at `positions` is found."""

    def take(_: Any, inputs: Any) -> Any:
        found.append(inputs[0][positions])
        return (found[-1][:0], *inputs[1:])

    hook = model.get_output_embeddings().register_forward_pre_hook(take)
    try:
        yield
    finally:
        hook.remove()


@contextmanager
def _layers_at(
    model: Any, positions: torch.Tensor, layers: Sequence[int], outputs: dict[int, torch.Tensor], logits: bool
) -> Iterator[None]:
    """Inside the block the outputs of the layers at `positions` are found by number, beside the logits there."""

    def keep(layer: int, _: Any, inputs: Any, output: Any) -> None:
        outputs[layer] = (output[0] if isinstance(output, tuple) else output)[positions]

    with ExitStack() as stack:
        for layer in layers:
            hook = model.get_decoder().layers[layer].register_forward_hook(partial(keep, layer))
            stack.callback(hook.remove)
        stack.enter_context(logits_at(model, positions if logits else torch.zeros_like(positions)))
        yield
