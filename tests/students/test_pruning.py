import pytest
import tiny
import torch
from small_models import EXAMPLES, FAMILIES, IDS, OTHER_FAMILIES, other_model, small_model
from transformers import AutoModelForCausalLM, AutoTokenizer

from distill.core.errors import UserError
from distill.modeling import loading
from distill.modeling.forward import layer_stack
from distill.params.init import PrunedStudent
from distill.students import importance
from distill.students.pruning import KeptParts, prune, select_layers, select_parts, top_indices
from distill.students.vocabulary import select_tokens, trim_tokenizer

ALL = KeptParts([0, 1, 2, 3, 4, 5])


@pytest.mark.parametrize(
    ("total", "layers", "selection", "kept"),
    [
        (30, 7, "uniform", [0, 5, 10, 15, 19, 24, 29]),
        (6, 2, "uniform", [0, 5]),
        (6, 1, "uniform", [0]),
        (4, 4, "uniform", [0, 1, 2, 3]),
        (30, [0, 3, 29], "explicit", [0, 3, 29]),
        (30, 5, "first_and_last", [0, 1, 2, 28, 29]),
        (6, 1, "first_and_last", [0]),
        (4, 4, "first_and_last", [0, 1, 2, 3]),
    ],
)
def test_layer_selections_keep_their_layers(total, layers, selection, kept):
    assert select_layers(total, layers, selection) == kept


@pytest.mark.parametrize(("layers", "selection"), [(7, "uniform"), (7, "first_and_last"), ([0, 6], "explicit")])
def test_layers_that_the_teacher_lacks_are_refused(layers, selection):
    with pytest.raises(UserError, match=r"init\.layers"):
        select_layers(6, layers, selection)


def sizes(**changes: object) -> PrunedStudent:
    value = {"source": "pruned", "teacher": "t", "layers": 6, "layer_selection": "uniform", "intermediate_size": None}
    return PrunedStudent(
        **(value | {"num_key_value_heads": None, "num_calibration_samples": 2, "vocab_size": 300} | changes)
    )


@pytest.mark.parametrize("family", FAMILIES)
def test_a_layer_without_influence_is_pruned_first(family):
    model = small_model(family)
    with torch.no_grad():
        model.get_decoder().layers[3].self_attn.o_proj.weight.zero_()
        model.get_decoder().layers[3].mlp.down_proj.weight.zero_()
    influence = importance.block_influence(model, EXAMPLES)
    assert influence[3] == pytest.approx(0, abs=1e-6)
    assert min(value for position, value in enumerate(influence) if position != 3) > 1e-3
    parts = select_parts(model, sizes(layers=5, layer_selection="block_influence"), EXAMPLES)
    assert parts == KeptParts([0, 1, 2, 4, 5])
    student = prune(model, parts, range(60))
    assert torch.allclose(student(IDS).logits, model(IDS).logits, atol=1e-4)


@pytest.mark.parametrize("family", FAMILIES)
def test_keeping_all_neurons_and_heads_changes_nothing(family):
    model = small_model(family)
    parts = select_parts(model, sizes(intermediate_size=48, num_key_value_heads=2), EXAMPLES)
    assert parts == KeptParts([0, 1, 2, 3, 4, 5], [list(range(48))] * 6, [[0, 1]] * 6)
    assert torch.equal(prune(model, parts, range(60))(IDS).logits, model(IDS).logits)


@pytest.mark.parametrize("family", FAMILIES)
def test_silent_neurons_are_pruned_first(family):
    model = small_model(family)
    with torch.no_grad():
        for position, layer in enumerate(model.get_decoder().layers):
            layer.mlp.up_proj.weight[[position, 40]] = 0
    parts = select_parts(model, sizes(intermediate_size=46), EXAMPLES)
    assert parts.neurons[2] == [position for position in range(48) if position not in (2, 40)]
    student = prune(model, parts, range(60))
    assert student.config.intermediate_size == 46
    assert student.get_decoder().layers[0].mlp.down_proj.weight.shape == (32, 46)
    assert torch.allclose(student(IDS).logits, model(IDS).logits, atol=1e-4)


@pytest.mark.parametrize("family", FAMILIES)
def test_silent_heads_are_pruned_first(family, tmp_path):
    model = small_model(family)
    with torch.no_grad():
        for layer in model.get_decoder().layers[:3]:
            layer.self_attn.v_proj.weight[:8] = 0  # key-value head 0 and so query heads 0 and 1
            if layer.self_attn.v_proj.bias is not None:
                layer.self_attn.v_proj.bias[:8] = 0
    parts = select_parts(model, sizes(layers=[0, 1, 2], layer_selection="explicit", num_key_value_heads=1), EXAMPLES)
    assert parts == KeptParts([0, 1, 2], None, [[1]] * 3)
    student = prune(model, parts, range(60))
    assert (student.config.num_attention_heads, student.config.num_key_value_heads, student.config.head_dim) == (
        2,
        1,
        8,
    )
    with_all_heads = prune(model, KeptParts([0, 1, 2]), range(60))
    assert torch.allclose(student(IDS).logits, with_all_heads(IDS).logits, atol=1e-4)
    student.save_pretrained(tmp_path)
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path)
    assert type(loaded) is type(model)
    assert torch.equal(loaded(IDS).logits, student(IDS).logits)


@pytest.mark.parametrize("changes", [{"intermediate_size": 49}, {"num_key_value_heads": 3}, {"layers": 7}])
def test_more_than_the_teacher_has_is_refused_by_name(changes):
    (name,) = changes
    with pytest.raises(UserError, match=rf"init\.{name}: must be at most \d+, the teacher's"):
        select_parts(small_model("llama"), sizes(**changes), EXAMPLES)


def test_ties_keep_the_first():
    assert top_indices([0.5, 2.0, 0.5, 0.5, 1.0], 3) == [0, 1, 4]


@pytest.mark.parametrize("family", FAMILIES)
def test_keeping_everything_changes_nothing(family):
    model = small_model(family)
    student = prune(model, ALL, range(60))
    assert torch.equal(student(IDS).logits, model(IDS).logits)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_trimmed_vocabulary_keeps_the_teachers_logits(family):
    model = small_model(family)
    kept = [0, 1, 2, 5, 7, 11, 30, 41]
    student = prune(model, ALL, kept)
    student_ids = torch.tensor([[kept.index(token) for token in IDS[0].tolist()]])
    assert torch.allclose(student(student_ids).logits, model(IDS).logits[..., kept], atol=1e-6)
    assert student.config.vocab_size == 8
    assert (student.config.bos_token_id, student.config.eos_token_id, student.config.pad_token_id) == (1, 2, 2)


@pytest.mark.parametrize("family", FAMILIES)
def test_kept_layers_equal_the_teachers(family):
    model = small_model(family)
    student = prune(model, KeptParts([0, 2, 5]), range(60))
    decoder, original = student.get_decoder().layers, model.get_decoder().layers
    assert len(decoder) == student.config.num_hidden_layers == 3
    for position, old in enumerate([0, 2, 5]):
        assert torch.equal(decoder[position].mlp.down_proj.weight, original[old].mlp.down_proj.weight)
    with_cache, without = (
        student.generate(IDS, do_sample=False, max_new_tokens=8, min_new_tokens=8, use_cache=cache)
        for cache in (True, False)
    )
    assert torch.equal(with_cache, without)


def test_a_student_is_saved_as_a_transformers_folder(tmp_path):
    tokenizer = tiny.tokenizer()
    model = tiny.model(len(tokenizer))
    kept = select_tokens(tokenizer, {}, 300)
    student = prune(model, KeptParts([0, 3]), kept)
    student.save_pretrained(tmp_path)
    trim_tokenizer(tokenizer, kept).save_pretrained(tmp_path)
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path)
    ids = AutoTokenizer.from_pretrained(tmp_path)("What is honey?", return_tensors="pt").input_ids
    assert torch.equal(loaded(ids).logits, student(ids).logits)
    assert [path.suffix for path in tmp_path.glob("model*")] == [".safetensors"]


def test_a_padded_vocabulary_is_trimmed_to_the_tokenizer():
    tokenizer = tiny.tokenizer()
    model = tiny.model(len(tokenizer) + 64)
    student = prune(model, KeptParts([0, 1, 2, 3]), select_tokens(tokenizer, {}, 10_000))
    assert student.get_input_embeddings().weight.shape[0] == len(tokenizer)


def test_tied_weights_stay_tied_and_count_once():
    student = prune(small_model("llama"), KeptParts([0, 5]), range(60))
    assert student.get_input_embeddings().weight is student.get_output_embeddings().weight
    untied = prune(small_model("llama untied"), KeptParts([0, 5]), range(60))
    assert loading.parameter_count(untied) - loading.parameter_count(student) == 60 * 32


@pytest.mark.parametrize("family", OTHER_FAMILIES)
def test_every_architecture_keeps_the_layers_it_is_asked_for(family, tmp_path):
    model = other_model(family)
    student = prune(model, KeptParts([0, 3, 5]), range(50))
    student.save_pretrained(tmp_path)
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path)
    _, layers = layer_stack(loaded)
    _, original = layer_stack(model)
    for kept, old in zip(layers, [0, 3, 5], strict=True):
        assert all(torch.equal(value, original[old].state_dict()[name]) for name, value in kept.state_dict().items())
    hooks = [
        original[layer].register_forward_hook(
            lambda _, inputs, options, output: (inputs[0], *output[1:]) if isinstance(output, tuple) else inputs[0],
            with_kwargs=True,
        )
        for layer in (1, 2, 4)
    ]
    ids = torch.tensor([[1, 5, 7, 30]])
    expected = model(ids, use_cache=False).logits[..., :50]
    for hook in hooks:
        hook.remove()
    assert torch.allclose(loaded(ids).logits, expected, atol=1e-4)


def test_layers_without_rope_stay_without_it():
    assert prune(other_model("smollm3"), KeptParts([0, 3, 4, 5]), range(60)).config.no_rope_layers == [1, 0, 1, 0]
    assert prune(other_model("qwen3_moe"), KeptParts([0, 3, 4]), range(60)).config.mlp_only_layers == [1]


def test_layers_that_depend_on_their_number_are_refused():
    model = other_model("gpt2", scale_attn_by_inverse_layer_idx=True)
    prune(model, ALL, range(60))
    with pytest.raises(UserError, match="must have the logits of the model that skips the same layers"):
        prune(model, KeptParts([0, 3, 5]), range(60))


def test_fused_projections_are_pruned_in_width():
    model = other_model("phi3")
    parts = select_parts(model, sizes(intermediate_size=20, num_key_value_heads=1), EXAMPLES)
    student = prune(model, parts, range(60))
    mlp = student.get_decoder().layers[2].mlp.gate_up_proj.weight
    whole = model.get_decoder().layers[2].mlp.gate_up_proj.weight
    assert torch.equal(mlp, whole[[*parts.neurons[2], *(48 + neuron for neuron in parts.neurons[2])]])
    assert student.get_decoder().layers[0].self_attn.qkv_proj.weight.shape == (2 * 8 + 8 + 8, 32)


@pytest.mark.parametrize(
    ("family", "changes"), [("olmo2", {"num_key_value_heads": 1}), ("gpt2", {"intermediate_size": 9})]
)
def test_widths_that_an_architecture_cannot_have_are_refused(family, changes):
    model = other_model(family)
    with pytest.raises(UserError, match="cannot be pruned"):
        prune(model, select_parts(model, sizes(**changes), EXAMPLES), range(60))
