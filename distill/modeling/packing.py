"""A batch without its padding: its rows one after the other, and what all of them begin with only once.

What a model computes for each token by itself, it computes for these tokens alone; in attention each row sees the
shared beginning and itself.
"""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch.nn.functional import pad
from transformers import AttentionInterface, PreTrainedModel
from transformers.integrations.sdpa_attention import sdpa_attention_forward

from distill.modeling.batches import PaddedBatch

# Kernels are made and kept for each shape (oneDNN in bfloat16: 1.2 GB over 43 steps of training), so that batches of
# like size have the same: tokens, and in attention the columns of rows, come in multiples of these.
TOKEN_STEP, COLUMN_STEP = 64, 8
LAYERS = {"full_attention", "sliding_attention", "chunked_attention"}  # whose tokens meet in attention alone
OWN_MASKS = {"doge"}  # architectures whose attention computes a mask of its own
PACKED = {"eager": "packed_eager", "sdpa": "packed_sdpa"}  # transformers' attention, and ours that calls it for rows


@dataclass(frozen=True)
class Packed:
    """Tokens of a batch in one row [1, tokens]: the shared beginning, each row's own, padding to a TOKEN_STEP.

    `position_ids` are their places in their rows, and `response_mask` is as in `PaddedBatch`.
    `rows` [batch x columns] says where each row's own tokens are, and 0 behind the end of a row, where nothing is
    read; `own` [own tokens] are the places in `rows` before those ends. `mask` is what attention adds,
    [batch, 1, columns, shared + columns], and `shared_mask` the same within the beginning, [1, 1, shared, shared].
    """

    input_ids: torch.Tensor
    position_ids: torch.Tensor
    response_mask: torch.Tensor
    shared: int
    rows: torch.Tensor
    own: torch.Tensor
    mask: torch.Tensor
    shared_mask: torch.Tensor


def pack(padded: PaddedBatch, dtype: torch.dtype) -> Packed:
    """The batch without its padding, its attention masks of this dtype."""
    shared = shared_columns(padded)
    missing = (shared - padded.input_ids.shape[1]) % COLUMN_STEP
    ids, mask, response_mask = (pad(tensor, (0, missing)) for tensor in vars(padded).values())
    present = mask[:, shared:].bool()
    batch, columns = present.shape
    own = present.flatten().nonzero()[:, 0]
    count = shared + len(own)

    def packed(values: torch.Tensor) -> torch.Tensor:
        """The values [batch, seq] in one row."""
        one = torch.cat([values[0, :shared], values[:, shared:].flatten()[own]])
        return pad(one, (0, -count % TOKEN_STEP))[None]

    rows = own.new_zeros(batch * columns)
    rows[own] = torch.arange(shared, count, device=own.device)
    places = torch.arange(shared + columns, device=ids.device)
    causal = places[:, None] >= places
    seen = torch.cat([causal.new_ones(batch, shared), present], dim=1)[:, None] & causal[shared:]

    def added(seen: torch.Tensor) -> torch.Tensor:
        """A mask of what is seen as what attention adds."""
        return torch.zeros(seen.shape, dtype=dtype, device=ids.device).masked_fill_(~seen, torch.finfo(dtype).min)

    return Packed(
        packed(ids),
        packed(places.expand(batch, -1)),
        packed(response_mask),
        shared,
        rows,
        own,
        added(seen)[:, None],
        added(causal[:shared, :shared])[None, None],
    )


def shared_columns(batch: PaddedBatch) -> int:
    """The number of columns that all rows have in common before the response mask begins; 0 for a batch of one."""
    ids = batch.input_ids
    if len(ids) == 1:
        return 0
    same = (ids == ids[:1]).all(0) & ~batch.response_mask.any(0)
    return int(same.int().cumprod(0).sum())


def is_possible(model: PreTrainedModel, columns: int) -> bool:
    """Whether the model computes its tokens one by one but for an attention that sees so many columns at once."""
    decoder = model.get_decoder()
    config = decoder.config
    windows = [getattr(config, name, None) for name in ("sliding_window", "attention_chunk_size")]
    return (
        all(part._supports_attention_backend and not part._is_stateful for part in (model, decoder))
        and set(getattr(config, "layer_types", None) or ()) <= LAYERS
        and config.model_type not in OWN_MASKS
        and config._attn_implementation in PACKED
        and all(window is None or columns <= window for window in windows)
        and not model.is_activation_checkpointing
    )


@contextmanager
def attention(model: PreTrainedModel) -> Iterator[None]:
    """Inside the block the model takes packed batches: `model(input_ids, position_ids, packed=...)`."""
    config = model.get_decoder().config
    before = config._attn_implementation
    config._attn_implementation = PACKED[before]
    try:
        yield
    finally:
        config._attn_implementation = before


def _attend(
    plain: Callable[[Any], Callable[..., Any]],
    module: Any,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    packed: Packed,
    **options: Any,
) -> tuple[torch.Tensor, None]:
    """What attention gives packed tokens, [1, tokens, heads, width], by theirs of [1, heads, tokens, width].

    `plain` finds the attention of padded batches for a module; the shared beginning is a batch of its own.
    """
    if attention_mask is not None:
        raise ValueError(f"{type(module).__name__} has a mask of its own, which packed batches would lose")
    attend = partial(plain(module), module, **options)
    shared, batch = packed.shared, len(packed.mask)

    def by_row(states: torch.Tensor) -> torch.Tensor:
        """The states of each row's own tokens, [batch, heads, columns, width]."""
        _, heads, tokens, width = states.shape
        found = states[0].transpose(0, 1).reshape(tokens, heads * width).index_select(0, packed.rows)
        return found.view(batch, -1, heads, width).transpose(1, 2)

    keys, values = by_row(key), by_row(value)
    first = [states[:, :, :shared] for states in (query, key, value)]
    if shared:
        keys, values = (
            torch.cat([beginning.expand(batch, -1, -1, -1), own], dim=2)
            for beginning, own in zip(first[1:], (keys, values), strict=True)
        )
    found = attend(by_row(query), keys, values, packed.mask)[0].flatten(0, 1).index_select(0, packed.own)
    if shared:
        found = torch.cat([attend(*first, packed.shared_mask)[0][0], found])
    return pad(found, (0, 0, 0, 0, 0, query.shape[2] - len(found)))[None], None


def _eager(module: Any) -> Callable[..., Any]:
    """The plain attention of the module's architecture."""
    return sys.modules[type(module).__module__].eager_attention_forward


AttentionInterface.register(PACKED["eager"], partial(_attend, _eager))
AttentionInterface.register(PACKED["sdpa"], partial(_attend, lambda _: sdpa_attention_forward))
