"""What layers of the teacher hand on at the places of the responses, for layers of the student to learn."""

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from tqdm import tqdm

from distill.core.errors import UserError
from distill.modeling.batches import PaddedBatch
from distill.modeling.chat import Example
from distill.modeling.forward import per_example, response_layers
from distill.targets.store import States


@torch.inference_mode()
def layer_states(
    model: Any, examples: Sequence[Example], layers: Sequence[int], batch_tokens: int
) -> Iterator[tuple[str, States]]:
    """Yields (sample id, states [tokens, layers, width] in bfloat16) from one teacher-forced pass.

    Row i is what the layers hand on at the position that predicts the i-th token of the response, before any final
    norm. Raises UserError for a layer that the model does not have.
    """
    total = model.config.get_text_config().num_hidden_layers
    if max(layers) >= total:
        raise UserError(f"weight.layers: the teacher's layers are 0 to {total - 1}, given {list(layers)}.")

    def outputs(model: Any, batch: PaddedBatch) -> torch.Tensor:
        _, states = response_layers(model, batch, layers, logits=False)
        return torch.stack([layer.bfloat16() for layer in states], dim=1).cpu()

    with tqdm(total=sum(len(example.response) for example in examples), desc="layers", unit="token") as bar:
        for index, states in per_example(model, examples, batch_tokens, outputs):
            yield examples[index].id, States(states)
            bar.update(len(states))
