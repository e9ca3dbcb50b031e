"""Importance of a model's layers, MLP neurons and attention heads, measured on some of the training rows.

All values are means over the tokens of prompts and responses. Higher is more important; none needs a gradient.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch.utils.hooks import RemovableHandle
from transformers import PreTrainedModel

from distill.core.errors import UserError
from distill.modeling.batches import padded_batches
from distill.modeling.chat import Example
from distill.modeling.forward import layer_stack

BATCH_TOKENS = 4096  # padded tokens of one batch


def block_influence(model: PreTrainedModel, examples: Sequence[Example]) -> list[float]:
    """1 - cos(x, y) of each layer's input x and output y, both hidden states of one token: ShortGPT (Men et al. 2024).

    A layer that changes nothing has 0.
    """
    _, layers = layer_stack(model)
    sums = torch.zeros(len(layers), dtype=torch.float64)

    def add_hook(number: int, mask: list[torch.Tensor]) -> RemovableHandle:
        def hook(_: torch.nn.Module, inputs: tuple[Any, ...], options: dict[str, Any], output: Any) -> None:
            states = inputs[0] if inputs else options["hidden_states"]
            before, after = states.float(), (output[0] if isinstance(output, tuple) else output).float()
            cosine = torch.cosine_similarity(before, after, dim=-1)
            sums[number] += (1 - cosine)[mask[0]].double().sum().cpu()

        return layers[number].register_forward_hook(hook, with_kwargs=True)

    tokens = _pass(model, examples, lambda mask: [add_hook(number, mask) for number in range(len(layers))])
    return (sums / tokens).tolist()


def activations(model: PreTrainedModel, examples: Sequence[Example]) -> tuple[torch.Tensor, torch.Tensor]:
    """The importance of each MLP neuron [layers, neurons] and of each key-value head [layers, key-value heads].

    A neuron's importance is the mean of |a|, where `a` is its input to `down_proj`. A head's importance is the mean L2
    norm of its output, summed over the query heads that share the key-value head. So does Minitron (Muralidharan et al.
    2024), with the mean over batch and sequence. Raises UserError for a model whose layers have other names.
    """
    _, layers = layer_stack(model)
    try:
        downs, outs = [layer.mlp.down_proj for layer in layers], [layer.self_attn.o_proj for layer in layers]
        queries, groups = model.config.num_attention_heads, model.config.num_key_value_heads
    except AttributeError as error:
        raise UserError(
            f"init: a {model.config.model_type} model cannot be pruned by intermediate_size or num_key_value_heads "
            f"({error}). Leave both null."
        ) from None
    neurons = torch.zeros(len(layers), downs[0].in_features, dtype=torch.float64)
    heads = torch.zeros(len(layers), groups, dtype=torch.float64)

    def add_hook(
        module: torch.nn.Module,
        size: Callable[[torch.Tensor], torch.Tensor],
        total: torch.Tensor,
        mask: list[torch.Tensor],
    ) -> RemovableHandle:
        def hook(_: torch.nn.Module, inputs: tuple[Any, ...]) -> None:
            total.add_(size(inputs[0][mask[0]].float()).double().sum(0).cpu())

        return module.register_forward_pre_hook(hook)

    def head_norms(values: torch.Tensor) -> torch.Tensor:
        return values.view(len(values), groups, queries // groups, -1).norm(dim=-1).sum(-1)

    def hooks(mask: list[torch.Tensor]) -> list[RemovableHandle]:
        handles = [add_hook(module, torch.abs, neurons[number], mask) for number, module in enumerate(downs)]
        return handles + [add_hook(module, head_norms, heads[number], mask) for number, module in enumerate(outs)]

    tokens = _pass(model, examples, hooks)
    return neurons / tokens, heads / tokens


@torch.inference_mode()
def _pass(
    model: PreTrainedModel, examples: Sequence[Example], hooks: Callable[[list[torch.Tensor]], list[RemovableHandle]]
) -> int:
    """The number of tokens of one forward pass over the examples, with hooks that see the mask of real tokens."""
    tokens, mask = 0, [torch.empty(0)]
    handles = hooks(mask)
    try:
        for _, batch in padded_batches(examples, BATCH_TOKENS):
            batch = batch.to(model.device)
            mask[0] = batch.attention_mask.bool()
            tokens += int(batch.attention_mask.sum())
            model.get_decoder()(input_ids=batch.input_ids, attention_mask=batch.attention_mask, use_cache=False)
    finally:
        for handle in handles:
            handle.remove()
    return tokens
