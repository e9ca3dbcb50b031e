"""Batches without padding: the same logits and gradients for every architecture that is packed."""

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from distill.modeling import packing
from distill.modeling.batches import pad_batch
from distill.modeling.forward import response_logits

SIZES = {
    "vocab_size": 50, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "head_dim": 8, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2,
    "initializer_range": 0.2,
}  # fmt: skip
EXPERTS = {"num_local_experts": 4, "num_experts_per_tok": 2}
ARCHITECTURES = {
    "llama": {}, "qwen2": {}, "qwen3": {}, "gemma2": {}, "gemma3_text": {}, "mistral": {}, "phi3": {}, "smollm3": {},
    "olmo2": {}, "granite": {}, "gpt_neox": {}, "mixtral": EXPERTS, "gpt_oss": EXPERTS,
    "gpt2": {"n_embd": 32, "n_layer": 2, "n_head": 4},
}  # fmt: skip
MIXED = {kind: ["linear_attention", "full_attention"] for kind in ("qwen3_next", "minimax")}
MIXED["lfm2"] = ["conv", "full_attention"]
NO_SDPA = ("gemma2", "gpt_oss")  # in transformers
CASES = [(kind, name) for kind in ARCHITECTURES for name in packing.PACKED if name != "sdpa" or kind not in NO_SDPA]
SYSTEM = [1, 7, 9, 4, 3, 8]
RAGGED = [([*SYSTEM, 11, 12, 6], [13, 14, 2]), ([*SYSTEM, 15, 12, 6], [16, 2]), ([*SYSTEM, 11, 12, 17, 18], [19])]
EVEN = [([5, 6], [7, 2]), ([8, 9], [12, 2])]
APART = [([5, 6], [7, 2]), ([8, 9, 10, 11], [12]), ([13], [14, 15, 16, 2])]
BATCHES = {"shared": RAGGED, "none": APART, "no padding": EVEN, "one row": RAGGED[:1]}


def model(kind: str, attention: str = "eager", **sizes):
    torch.manual_seed(0)
    given = SIZES | ARCHITECTURES.get(kind, {}) | sizes
    return AutoModelForCausalLM.from_config(AutoConfig.for_model(kind, **given), attn_implementation=attention).eval()


def padded_logits(network, batch) -> torch.Tensor:
    return network(input_ids=batch.input_ids, attention_mask=batch.attention_mask).logits[batch.response_mask]


def results(network, logits) -> list[torch.Tensor]:
    network.zero_grad()
    logits.logsumexp(-1).sum().backward()
    gradients = [torch.zeros_like(part) if part.grad is None else part.grad for part in network.parameters()]
    return [logits.detach(), *(gradient.clone() for gradient in gradients)]


@pytest.mark.parametrize("pairs", BATCHES.values(), ids=BATCHES)
@pytest.mark.parametrize(("kind", "attention"), CASES)
def test_packed_batches_have_the_logits_and_gradients_of_padded_ones(kind, attention, pairs):
    network = model(kind, attention)
    batch = pad_batch(pairs)
    assert packing.is_possible(network, batch.input_ids.shape[1])
    whole = results(network, padded_logits(network, batch))
    for one, other in zip(results(network, response_logits(network, batch)), whole, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)
    assert network.get_decoder().config._attn_implementation == attention


def test_a_model_that_mixes_tokens_elsewhere_or_sees_a_window_only_is_not_packed():
    assert not packing.is_possible(model("mistral", sliding_window=8), 9)
    assert packing.is_possible(model("mistral", sliding_window=8), 8)
    for kind, layers in MIXED.items():
        assert not packing.is_possible(model(kind, layer_types=layers), 8), "its tokens meet outside of attention too"
    assert not packing.is_possible(model("doge"), 8), "its attention has a mask of its own"
    assert not packing.is_possible(model("bloom", n_layer=1, hidden_size=32, n_head=4), 8)


def test_an_attention_with_a_mask_of_its_own_is_refused():
    network = model("llama")
    with packing.attention(network), pytest.raises(ValueError, match="has a mask of its own"):
        network(input_ids=torch.tensor([[1, 2]]), attention_mask=torch.zeros(1, 1, 2, 2), packed=None)


@pytest.mark.parametrize("pairs", [RAGGED, APART], ids=["a shared beginning", "none"])
def test_in_half_precision_they_are_as_near_to_the_exact_ones_as_padded_ones(pairs):
    network = model("llama")
    batch = pad_batch(pairs)
    exact = padded_logits(network, batch)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        whole = padded_logits(network, batch)
        found = response_logits(network, batch)
    assert (found - exact).norm() <= 1.2 * (whole - exact).norm()


def test_columns_are_shared_up_to_the_first_difference_and_before_the_first_prediction():
    assert packing.shared_columns(pad_batch(RAGGED)) == len(SYSTEM)
    same = [([1, 7, 9], [5, 2]), ([1, 7, 9], [5, 2])]
    assert packing.shared_columns(pad_batch(same)) == 2, "the last prompt token predicts, so it is needed in every row"
    assert packing.shared_columns(pad_batch(same[:1])) == 0
    assert packing.shared_columns(pad_batch([([1, 7], [2]), ([3, 7], [2])])) == 0
