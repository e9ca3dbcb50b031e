"""The gradient of an embedding that is tied to the output matrix, without copies of the whole vocabulary."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from transformers import PreTrainedModel


@contextmanager
def gradients_in_place(model: PreTrainedModel) -> Iterator[None]:
    """Inside the block the gradient of a tied embedding's look-ups is added to the rows that were looked up.

    Otherwise each look-up makes a gradient of the whole vocabulary, nearly all zeros, which is added to that of the
    output matrix: a tenth of a step on a processor. The sums are the same. They are left to torch where the two are not
    tied, in a class of embeddings that does more than look up, and in several processes, which exchange whole
    gradients. In every case a token that pads too, such as the end of a turn, is learnt where it is text.
    """
    embedding = model.get_input_embeddings()
    # torch would give look-ups of the token that pads no gradient; what does pad is masked and has none anyway
    embedding.padding_idx = None  # type: ignore[assignment]
    tied = embedding.weight is model.get_output_embeddings().weight
    if not tied or type(embedding) is not torch.nn.Embedding or torch.distributed.is_initialized():
        yield
        return
    hook = embedding.register_forward_hook(_detach_rows)
    try:
        yield
    finally:
        hook.remove()


def _detach_rows(embedding: torch.nn.Embedding, inputs: tuple[torch.Tensor], output: torch.Tensor) -> torch.Tensor:
    """The looked-up rows, detached; their gradient is added to the embedding's as soon as it is computed."""
    if not output.requires_grad:
        return output
    ids, weight = inputs[0].flatten(), embedding.weight

    def add(rows: torch.Tensor) -> None:
        if weight.grad is None:
            weight.grad = torch.zeros_like(weight)
        assert rows.grad is not None, "called when it is there"
        weight.grad.index_add_(0, ids, rows.grad.flatten(0, -2))
        rows.grad = None

    rows = output.detach().requires_grad_()
    rows.register_post_accumulate_grad_hook(add)
    return rows
