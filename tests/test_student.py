import pytest
import tiny
import torch
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    Gemma3ForCausalLM,
    Gemma3TextConfig,
    LlamaConfig,
    LlamaForCausalLM,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
)

from distill import models, student, vocabulary
from distill.errors import UserError

SHAPE = {
    "vocab_size": 60, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 6, "num_attention_heads": 4,
    "num_key_value_heads": 2, "head_dim": 8, "max_position_embeddings": 64, "initializer_range": 0.2,
    "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 2,
}  # fmt: skip
KINDS = {
    "llama": (LlamaForCausalLM, LlamaConfig, {"tie_word_embeddings": True}),
    "llama untied": (LlamaForCausalLM, LlamaConfig, {"tie_word_embeddings": False}),
    "qwen2": (Qwen2ForCausalLM, Qwen2Config, {"tie_word_embeddings": True}),
    "qwen3": (Qwen3ForCausalLM, Qwen3Config, {"tie_word_embeddings": False}),
    "gemma3": (Gemma3ForCausalLM, Gemma3TextConfig, {"sliding_window": 4}),
}
IDS = torch.tensor([[1, 5, 7, 30, 41, 2]])


def teacher(kind: str):
    torch.manual_seed(0)
    network, config, own = KINDS[kind]
    return network(config(**SHAPE, **own)).eval()


@pytest.mark.parametrize(
    ("total", "layers", "kept"),
    [
        (30, 7, [0, 5, 10, 15, 19, 24, 29]),
        (6, 2, [0, 5]),
        (6, 1, [0]),
        (4, 4, [0, 1, 2, 3]),
        (30, [0, 3, 29], [0, 3, 29]),
    ],
)
def test_layers_are_spread_evenly_with_both_ends_or_are_those_listed(total, layers, kept):
    assert student.kept_layers(total, layers) == kept


@pytest.mark.parametrize("layers", [7, [0, 6]])
def test_layers_that_the_teacher_lacks_are_refused(layers):
    with pytest.raises(UserError, match=r"train\.student\.layers"):
        student.kept_layers(6, layers)


@pytest.mark.parametrize("kind", KINDS)
def test_with_everything_kept_the_student_is_the_teacher(kind):
    big = teacher(kind)
    small = student.cut(big, 6, range(60))
    assert torch.equal(small(IDS).logits, big(IDS).logits)


@pytest.mark.parametrize("kind", KINDS)
def test_with_a_trimmed_vocabulary_the_logits_are_the_teachers_at_the_kept_ids(kind):
    big = teacher(kind)
    kept = [0, 1, 2, 5, 7, 11, 30, 41]
    small = student.cut(big, 6, kept)
    own = torch.tensor([[kept.index(token) for token in IDS[0].tolist()]])
    assert torch.allclose(small(own).logits, big(IDS).logits[..., kept], atol=1e-6)
    assert small.config.vocab_size == 8
    assert (small.config.bos_token_id, small.config.eos_token_id, small.config.pad_token_id) == (1, 2, 2)


@pytest.mark.parametrize("kind", KINDS)
def test_kept_layers_are_the_teachers_and_the_cache_works(kind):
    big = teacher(kind)
    small = student.cut(big, [0, 2, 5], range(60))
    decoder, original = small.get_decoder().layers, big.get_decoder().layers
    assert len(decoder) == small.config.num_hidden_layers == 3
    for place, old in enumerate([0, 2, 5]):
        assert torch.equal(decoder[place].mlp.down_proj.weight, original[old].mlp.down_proj.weight)
    with_cache, without = (
        small.generate(IDS, do_sample=False, max_new_tokens=8, min_new_tokens=8, use_cache=cache)
        for cache in (True, False)
    )
    assert torch.equal(with_cache, without)


def test_the_student_is_saved_as_a_normal_folder(tmp_path):
    tokenizer = tiny.tokenizer()
    big = tiny.model(len(tokenizer))
    kept = vocabulary.choose(tokenizer, {}, 300)
    small = student.cut(big, 2, kept)
    small.save_pretrained(tmp_path)
    vocabulary.trim(tokenizer, kept).save_pretrained(tmp_path)
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path)
    ids = AutoTokenizer.from_pretrained(tmp_path)("What is honey?", return_tensors="pt").input_ids
    assert torch.equal(loaded(ids).logits, small(ids).logits)
    assert [path.suffix for path in tmp_path.glob("model*")] == [".safetensors"]


def test_a_padded_vocabulary_is_cut_to_the_real_tokenizers():
    tokenizer = tiny.tokenizer()
    big = tiny.model(len(tokenizer) + 64)
    small = student.cut(big, 4, vocabulary.choose(tokenizer, {}, 10_000))
    assert small.get_input_embeddings().weight.shape[0] == len(tokenizer)


def test_tied_weights_stay_tied_and_count_once():
    small = student.cut(teacher("llama"), 2, range(60))
    assert small.get_input_embeddings().weight is small.get_output_embeddings().weight
    untied = student.cut(teacher("llama untied"), 2, range(60))
    assert models.parameter_count(untied) - models.parameter_count(small) == 60 * 32


def test_a_model_or_package_that_is_not_there_is_a_message(tmp_path):
    for name in ("package:no_such_package/a.gguf", "package:distill/no.gguf", str(tmp_path / "a.gguf"), str(tmp_path)):
        with pytest.raises(UserError, match="model"):
            models.load(name, torch.float32)


def test_a_tokenizer_without_its_fast_file_or_a_pickled_model_is_refused(tmp_path):
    tokenizer = tiny.tokenizer()
    tokenizer.save_pretrained(tmp_path)
    small = tiny.model(len(tokenizer))
    small.config.save_pretrained(tmp_path)
    torch.save(small.state_dict(), tmp_path / "pytorch_model.bin")
    with pytest.raises(UserError, match="cannot be loaded"):
        models.load(str(tmp_path), torch.float32)
