"""Logits at the response's positions only (or what they are made of), and what all prompts begin with computed once.

The vocabulary's matmul is the dearest of a small model, and the system prompt the same in every row of a batch.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any

import torch
from torch.nn.functional import pad
from transformers import DynamicCache

# Kernels are made and kept for each shape (oneDNN in bfloat16: 1.2 GB over 43 steps of training), so that batches of
# like size have the same: columns, and rows of the output matrix's product, come in multiples of these.
COLUMN_STEP, ROW_STEP = 8, 64


def response_logits(
    model: Any, ids: torch.Tensor, mask: torch.Tensor, predicts: torch.Tensor, wrapper: Any = None
) -> torch.Tensor:
    """The logits at the positions that `predicts` marks, [positions marked, vocab], read row by row.

    `ids`, `mask` and `predicts` are [batch, seq], padded on the right (see `batches.padded`). The columns before
    the first difference between rows go through the model once, as a batch of one whose keys and values all rows
    attend to; gradients add up there, so that the result is that of the whole batch. A `wrapper` of the model
    (DDP, FSDP) is called in its place with the whole batch, as is a model whose cache is off.
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
    """The model's logits, with the columns that all rows share computed once, inside `at(model, positions)`."""
    ids, mask, predicts = (part.to(model.device) for part in (ids, mask, predicts))
    cache, shared = None, 0
    if wrapper is None and model.config.get_text_config().use_cache:
        shared = shared_columns(ids, predicts)
    ids, mask, predicts = (pad(part, (0, (shared - ids.shape[1]) % COLUMN_STEP)) for part in (ids, mask, predicts))
    if shared:
        cache = prefix_cache(model, ids[:1, :shared], len(ids))
    with at(model, predicts[:, shared:]):
        return (wrapper or model)(
            input_ids=ids[:, shared:], attention_mask=mask, past_key_values=cache, use_cache=cache is not None
        ).logits


def shared_columns(ids: torch.Tensor, predicts: torch.Tensor) -> int:
    """How many columns all rows have in common before the first that predicts; 0 for a batch of one."""
    if len(ids) == 1:
        return 0
    same = (ids == ids[:1]).all(0) & ~predicts.any(0)
    return int(same.int().cumprod(0).sum())


def prefix_cache(model: Any, prefix: torch.Tensor, rows: int) -> DynamicCache:
    """The keys and values of a prefix [1, tokens] for that many rows."""
    cache = DynamicCache(config=model.config)
    model.get_decoder()(input_ids=prefix, past_key_values=cache, use_cache=True)
    cache.batch_repeat_interleave(rows)
    return cache


@contextmanager
def logits_at(model: Any, positions: torch.Tensor) -> Iterator[None]:
    """Inside the block the model's `logits` are [positions chosen, vocab], row by row, instead of [batch, seq, vocab].

    `positions` is a mask [batch, seq]. Only the input of the output embedding is selected, so that what an
    architecture does to its logits afterwards (scaling, capping) still happens. Its last row is repeated up to a
    multiple of ROW_STEP for the product alone.
    """
    head = model.get_output_embeddings()
    places = positions.flatten().nonzero()[:, 0]
    count = len(places)
    places = torch.cat([places, places[-1:].repeat(-count % ROW_STEP)])
    before = head.register_forward_pre_hook(lambda _, inputs: (inputs[0].flatten(0, 1)[places], *inputs[1:]))
    after = head.register_forward_hook(lambda _, inputs, output: output[:count])
    try:
        yield
    finally:
        before.remove()
        after.remove()


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
