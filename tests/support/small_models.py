"""Small random models of several families, with token ids and examples for them."""

import torch
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    Gemma3ForCausalLM,
    Gemma3TextConfig,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedModel,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
)

from distill.modeling.chat import Example

SHAPE = {
    "vocab_size": 60, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 6, "num_attention_heads": 4,
    "num_key_value_heads": 2, "head_dim": 8, "max_position_embeddings": 64, "initializer_range": 0.2,
    "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 2,
}  # fmt: skip
FAMILIES = {
    "llama": (LlamaForCausalLM, LlamaConfig, {"tie_word_embeddings": True}),
    "llama untied": (LlamaForCausalLM, LlamaConfig, {"tie_word_embeddings": False}),
    "qwen2": (Qwen2ForCausalLM, Qwen2Config, {"tie_word_embeddings": True}),
    "qwen3": (Qwen3ForCausalLM, Qwen3Config, {"tie_word_embeddings": False}),
    "gemma3": (Gemma3ForCausalLM, Gemma3TextConfig, {"sliding_window": 4}),
}
# architectures whose layers have other names, lists by layer or fused matrices
OTHER_FAMILIES: dict[str, dict[str, object]] = {
    "bloom": {},
    "falcon": {},
    "gpt2": {},
    "gpt_neo": {"attention_types": [[["global", "local"], 3]]},
    "gptj": {"rotary_dim": 4},
    "llama4_text": {"num_local_experts": 2, "intermediate_size_mlp": 48, "attention_chunk_size": 4, "head_dim": 8},
    "mpt": {},
    "olmo2": {},
    "phi3": {"sliding_window": 4},
    "qwen3_moe": {
        "head_dim": 8,
        "num_experts": 4,
        "num_experts_per_tok": 2,
        "moe_intermediate_size": 16,
        "mlp_only_layers": [1, 3],
    },
    "smollm3": {"no_rope_layers": [1, 1, 1, 0, 1, 0]},
}
IDS = torch.tensor([[1, 5, 7, 30, 41, 2]])
EXAMPLES = [Example("a", [1, 5, 7], [30, 41, 2]), Example("b", [1, 9], [12, 2])]


def small_model(family: str) -> PreTrainedModel:
    """A model of 6 layers, the same weights each time."""
    torch.manual_seed(0)
    model_class, config, options = FAMILIES[family]
    return model_class(config(**SHAPE, **options)).eval()


def other_model(family: str, **changes: object) -> PreTrainedModel:
    """A random model of one of OTHER_FAMILIES."""
    torch.manual_seed(0)
    shape = {name: value for name, value in SHAPE.items() if name != "head_dim"}
    return AutoModelForCausalLM.from_config(
        AutoConfig.for_model(family, **shape, **OTHER_FAMILIES[family] | changes)
    ).eval()
