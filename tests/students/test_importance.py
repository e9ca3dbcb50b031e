import pytest
import torch
from small_models import EXAMPLES, IDS, small_model

from distill.students import importance


def test_block_influence_is_one_minus_the_mean_cosine():
    model = small_model("llama")
    cosines: list[torch.Tensor] = []
    for example in EXAMPLES:  # one at a time: no padding
        hidden = model.get_decoder()(torch.tensor([[*example.prompt, *example.response]]), output_hidden_states=True)
        first, second = hidden.hidden_states[2], hidden.hidden_states[3]
        cosines += torch.cosine_similarity(first, second, dim=-1).flatten().tolist()
    expected = 1 - sum(cosines) / len(cosines)
    assert importance.block_influence(model, EXAMPLES)[2] == pytest.approx(expected, abs=1e-5)


def test_importance_is_mean_activation_and_mean_norm():
    model = small_model("llama")
    seen: dict[str, list[torch.Tensor]] = {"down_proj": [], "o_proj": []}
    layer = model.get_decoder().layers[4]
    layer.mlp.down_proj.register_forward_pre_hook(lambda _, inputs: seen["down_proj"].append(inputs[0][0]))
    layer.self_attn.o_proj.register_forward_pre_hook(lambda _, inputs: seen["o_proj"].append(inputs[0][0]))
    with torch.no_grad():
        for example in EXAMPLES:
            model(torch.tensor([[*example.prompt, *example.response]]))
    inner, outputs = (torch.cat(parts) for parts in seen.values())
    neurons, heads = importance.activations(model, EXAMPLES)
    assert torch.allclose(neurons[4].float(), inner.abs().mean(0), atol=1e-5)
    expected = [sum(outputs[:, head * 8 : head * 8 + 8].norm(dim=1).mean().item() for head in pair) for pair in
                ((0, 1), (2, 3))]  # fmt: skip
    assert heads[4].tolist() == pytest.approx(expected, rel=1e-5)


def test_measuring_leaves_the_teacher_unchanged():
    model = small_model("llama")
    before = model(IDS).logits
    importance.block_influence(model, EXAMPLES)
    importance.activations(model, EXAMPLES)
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())
    assert torch.equal(model(IDS).logits, before)
