"""Logits at chosen positions only: the vocabulary's matmul is the dearest of a small model."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch


@contextmanager
def logits_at(model: Any, positions: torch.Tensor) -> Iterator[None]:
    """Inside the block the model's `logits` are [positions chosen, vocab], row by row, instead of [batch, seq, vocab].

    `positions` is a mask [batch, seq]. Only the input of the output embedding is selected, so that what an
    architecture does to its logits afterwards (scaling, capping) still happens.
    """
    head = model.get_output_embeddings()
    hook = head.register_forward_pre_hook(lambda _, inputs: (inputs[0][positions], *inputs[1:]))
    try:
        yield
    finally:
        hook.remove()
