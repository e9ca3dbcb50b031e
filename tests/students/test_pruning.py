import pytest
import tiny
import torch
from distill.params.students import TeacherStudent
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

from distill.core.errors import UserError
from distill.modeling import loading
from distill.modeling.chat import Example
from distill.students import importance, pruning, vocabulary
from distill.students.pruning import Parts

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
ALL = Parts([0, 1, 2, 3, 4, 5])


def teacher(kind: str):
    torch.manual_seed(0)
    network, config, own = KINDS[kind]
    return network(config(**SHAPE, **own)).eval()


@pytest.mark.parametrize(
    ("total", "layers", "choice", "kept"),
    [
        (30, 7, "evenly", [0, 5, 10, 15, 19, 24, 29]),
        (6, 2, "evenly", [0, 5]),
        (6, 1, "evenly", [0]),
        (4, 4, "evenly", [0, 1, 2, 3]),
        (30, [0, 3, 29], "listed", [0, 3, 29]),
        (30, 5, "first_and_last", [0, 1, 2, 28, 29]),
        (6, 1, "first_and_last", [0]),
        (4, 4, "first_and_last", [0, 1, 2, 3]),
    ],
)
def test_layers_are_those_listed_or_spread_evenly_or_the_first_and_last(total, layers, choice, kept):
    assert pruning.kept_layers(total, layers, choice) == kept


@pytest.mark.parametrize(("layers", "choice"), [(7, "evenly"), (7, "first_and_last"), ([0, 6], "listed")])
def test_layers_that_the_teacher_lacks_are_refused(layers, choice):
    with pytest.raises(UserError, match=r"train\.student\.layers"):
        pruning.kept_layers(6, layers, choice)


def choice(**changes: object) -> TeacherStudent:
    value = {"source": "teacher", "teacher": "t", "layers": 6, "layer_choice": "evenly", "neurons": None}
    return TeacherStudent(**(value | {"kv_heads": None, "calibration_rows": 2, "vocabulary": 300} | changes))


EXAMPLES = [Example("a", [1, 5, 7], [30, 41, 2]), Example("b", [1, 9], [12, 2])]


@pytest.mark.parametrize("kind", KINDS)
def test_a_layer_that_changes_nothing_has_no_influence_and_goes_first(kind):
    big = teacher(kind)
    with torch.no_grad():
        big.get_decoder().layers[3].self_attn.o_proj.weight.zero_()
        big.get_decoder().layers[3].mlp.down_proj.weight.zero_()
    influence = importance.block_influence(big, EXAMPLES)
    assert influence[3] == pytest.approx(0, abs=1e-6)
    assert min(value for place, value in enumerate(influence) if place != 3) > 1e-3
    parts = pruning.choose(big, choice(layers=5, layer_choice="block_influence"), EXAMPLES)
    assert parts == Parts([0, 1, 2, 4, 5])
    small = pruning.cut(big, parts, range(60))
    assert torch.allclose(small(IDS).logits, big(IDS).logits, atol=1e-4)


def test_block_influence_is_one_less_the_mean_cosine_over_real_tokens():
    big = teacher("llama")
    cosines: list[torch.Tensor] = []
    for example in EXAMPLES:  # one at a time: no padding
        hidden = big.get_decoder()(torch.tensor([[*example.prompt, *example.response]]), output_hidden_states=True)
        one, other = hidden.hidden_states[2], hidden.hidden_states[3]
        cosines += torch.cosine_similarity(one, other, dim=-1).flatten().tolist()
    expected = 1 - sum(cosines) / len(cosines)
    assert importance.block_influence(big, EXAMPLES)[2] == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_with_all_neurons_and_heads_kept_the_student_is_the_teacher(kind):
    big = teacher(kind)
    parts = pruning.choose(big, choice(neurons=48, kv_heads=2), EXAMPLES)
    assert parts == Parts([0, 1, 2, 3, 4, 5], [list(range(48))] * 6, [[0, 1]] * 6)
    assert torch.equal(pruning.cut(big, parts, range(60))(IDS).logits, big(IDS).logits)


@pytest.mark.parametrize("kind", KINDS)
def test_neurons_that_are_always_silent_go_first_and_are_not_missed(kind):
    big = teacher(kind)
    with torch.no_grad():
        for place, layer in enumerate(big.get_decoder().layers):
            layer.mlp.up_proj.weight[[place, 40]] = 0
    parts = pruning.choose(big, choice(neurons=46), EXAMPLES)
    assert parts.neurons[2] == [place for place in range(48) if place not in (2, 40)]
    small = pruning.cut(big, parts, range(60))
    assert small.config.intermediate_size == 46
    assert small.get_decoder().layers[0].mlp.down_proj.weight.shape == (32, 46)
    assert torch.allclose(small(IDS).logits, big(IDS).logits, atol=1e-4)


@pytest.mark.parametrize("kind", KINDS)
def test_heads_that_are_always_silent_go_first_and_are_not_missed(kind, tmp_path):
    big = teacher(kind)
    with torch.no_grad():
        for layer in big.get_decoder().layers[:3]:
            layer.self_attn.v_proj.weight[:8] = 0  # key-value head 0 and so query heads 0 and 1
            if layer.self_attn.v_proj.bias is not None:
                layer.self_attn.v_proj.bias[:8] = 0
    parts = pruning.choose(big, choice(layers=[0, 1, 2], layer_choice="listed", kv_heads=1), EXAMPLES)
    assert parts == Parts([0, 1, 2], None, [[1]] * 3)
    small = pruning.cut(big, parts, range(60))
    assert (small.config.num_attention_heads, small.config.num_key_value_heads, small.config.head_dim) == (2, 1, 8)
    whole = pruning.cut(big, Parts([0, 1, 2]), range(60))
    assert torch.allclose(small(IDS).logits, whole(IDS).logits, atol=1e-4)
    small.save_pretrained(tmp_path)
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path)
    assert type(loaded) is type(big)
    assert torch.equal(loaded(IDS).logits, small(IDS).logits)


def test_a_neurons_importance_is_its_mean_absolute_activation_and_a_heads_its_mean_norm():
    big = teacher("llama")
    seen: dict[str, list[torch.Tensor]] = {"down_proj": [], "o_proj": []}
    layer = big.get_decoder().layers[4]
    layer.mlp.down_proj.register_forward_pre_hook(lambda _, inputs: seen["down_proj"].append(inputs[0][0]))
    layer.self_attn.o_proj.register_forward_pre_hook(lambda _, inputs: seen["o_proj"].append(inputs[0][0]))
    with torch.no_grad():
        for example in EXAMPLES:
            big(torch.tensor([[*example.prompt, *example.response]]))
    inner, outputs = (torch.cat(parts) for parts in seen.values())
    neurons, heads = importance.activations(big, EXAMPLES)
    assert torch.allclose(neurons[4].float(), inner.abs().mean(0), atol=1e-5)
    expected = [sum(outputs[:, head * 8 : head * 8 + 8].norm(dim=1).mean().item() for head in pair) for pair in
                ((0, 1), (2, 3))]  # fmt: skip
    assert heads[4].tolist() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("changes", [{"neurons": 49}, {"kv_heads": 3}, {"layers": 7}])
def test_more_than_the_teacher_has_is_refused_by_name(changes):
    (name,) = changes
    with pytest.raises(UserError, match=rf"train\.student\.{name}: .* is more than the teacher's"):
        pruning.choose(teacher("llama"), choice(**changes), EXAMPLES)


def test_of_equally_important_ones_the_first_are_kept():
    assert pruning.most([0.5, 2.0, 0.5, 0.5, 1.0], 3) == [0, 1, 4]


def test_measuring_leaves_the_teacher_as_it_was():
    big = teacher("llama")
    before = big(IDS).logits
    importance.block_influence(big, EXAMPLES)
    importance.activations(big, EXAMPLES)
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in big.modules())
    assert torch.equal(big(IDS).logits, before)


@pytest.mark.parametrize("kind", KINDS)
def test_with_everything_kept_the_student_is_the_teacher(kind):
    big = teacher(kind)
    small = pruning.cut(big, ALL, range(60))
    assert torch.equal(small(IDS).logits, big(IDS).logits)


@pytest.mark.parametrize("kind", KINDS)
def test_with_a_trimmed_vocabulary_the_logits_are_the_teachers_at_the_kept_ids(kind):
    big = teacher(kind)
    kept = [0, 1, 2, 5, 7, 11, 30, 41]
    small = pruning.cut(big, ALL, kept)
    own = torch.tensor([[kept.index(token) for token in IDS[0].tolist()]])
    assert torch.allclose(small(own).logits, big(IDS).logits[..., kept], atol=1e-6)
    assert small.config.vocab_size == 8
    assert (small.config.bos_token_id, small.config.eos_token_id, small.config.pad_token_id) == (1, 2, 2)


@pytest.mark.parametrize("kind", KINDS)
def test_kept_layers_are_the_teachers_and_the_cache_works(kind):
    big = teacher(kind)
    small = pruning.cut(big, Parts([0, 2, 5]), range(60))
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
    small = pruning.cut(big, Parts([0, 3]), kept)
    small.save_pretrained(tmp_path)
    vocabulary.trim(tokenizer, kept).save_pretrained(tmp_path)
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path)
    ids = AutoTokenizer.from_pretrained(tmp_path)("What is honey?", return_tensors="pt").input_ids
    assert torch.equal(loaded(ids).logits, small(ids).logits)
    assert [path.suffix for path in tmp_path.glob("model*")] == [".safetensors"]


def test_a_padded_vocabulary_is_cut_to_the_real_tokenizers():
    tokenizer = tiny.tokenizer()
    big = tiny.model(len(tokenizer) + 64)
    small = pruning.cut(big, Parts([0, 1, 2, 3]), vocabulary.choose(tokenizer, {}, 10_000))
    assert small.get_input_embeddings().weight.shape[0] == len(tokenizer)


def test_tied_weights_stay_tied_and_count_once():
    small = pruning.cut(teacher("llama"), Parts([0, 5]), range(60))
    assert small.get_input_embeddings().weight is small.get_output_embeddings().weight
    untied = pruning.cut(teacher("llama untied"), Parts([0, 5]), range(60))
    assert loading.parameter_count(untied) - loading.parameter_count(small) == 60 * 32
