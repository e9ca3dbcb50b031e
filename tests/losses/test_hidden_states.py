"""The hidden-state loss: its formulas, the positions it sees, its projections, and the steps that it makes."""

import math
from dataclasses import replace

import pytest
import tiny
import torch
from training_samples import FORWARD_KL, OPTIMIZATION, VOCAB_SIZE, max_difference, training_samples

from distill.core.errors import UserError
from distill.losses.hidden_states import (
    DISTANCES,
    PROJECTIONS,
    HiddenStateLoss,
    prepare_hidden_loss,
    projected,
    remove_projections,
)
from distill.losses.logit_loss import logit_loss
from distill.modeling.batches import PaddedBatch, pad_batch
from distill.modeling.chat import encode
from distill.modeling.forward import response_layers, response_logits
from distill.params.train import HiddenLoss
from distill.students.vocabulary import select_tokens, trim_tokenizer
from distill.targets.stored import StoredStates, top_k
from distill.targets.teacher_pass import layer_states
from distill.training import sampler, tied_embeddings, trainer
from distill.training.dataset import LayerTargets, TeacherTargets, collate, encode_samples
from distill.training.trainer import Objective

LAYERS, WIDTH = 3, 32  # stored of the teacher; of tiny.model and its teacher alike
ROWS = [
    tiny.weighted("ants", "What is honey?", 2.0),
    tiny.weighted("jazz", "people like jazz, maple and the fox", 0.5),
    tiny.weighted("north", "kites", 1.0),
]


def hidden_case(tokens: int = 13):
    generator = torch.Generator().manual_seed(0)
    outputs = [torch.randn(tokens, WIDTH, generator=generator).requires_grad_() for _ in range(2)]
    teacher = torch.randn(tokens, LAYERS, WIDTH, generator=generator)
    weights = torch.rand(tokens, generator=generator) + 0.1
    return outputs, teacher, weights, torch.ones(tokens, dtype=torch.bool)


def hidden_section(**changes: object) -> HiddenLoss:
    return HiddenLoss(
        **{
            "layer_pairs": [[9, 0], [3, 1]],
            "distance": "cosine",
            "projection": True,
            "weight": 0.5,
            "hint_fraction": 0.0,
        }
        | changes
    )


def hidden_loss(distance: str = "cosine", **changes: object) -> HiddenStateLoss:
    """That of `hidden_section`, with layers 3, 5 and 9 of the teacher stored."""
    return replace(
        HiddenStateLoss(layers=[0, 1], stored=[2, 0], distance=distance, weight=0.5, hint_fraction=0.0), **changes
    )


def test_distances_equal_their_formulas():
    student, teacher = torch.tensor([[3.0, 4.0]]), torch.tensor([[4.0, 3.0]])
    assert DISTANCES["cosine"](student, teacher).item() == pytest.approx(1 - 24 / 25, abs=1e-6)
    assert DISTANCES["mse"](student, teacher).item() == pytest.approx(1 / 12.5)
    assert DISTANCES["mse"](torch.zeros(1, 2), teacher).item() == pytest.approx(1)
    assert DISTANCES["mse"](10 * student, 10 * teacher).item() == pytest.approx(1 / 12.5), "whatever the size of both"
    assert DISTANCES["cosine"](-3 * teacher, teacher).item() == pytest.approx(2)


@pytest.mark.parametrize("distance", DISTANCES)
def test_loss_is_zero_for_equal_states(distance):
    _, teacher, weights, known = hidden_case()
    equal = [teacher[:, 2], teacher[:, 0]]
    assert hidden_loss(distance).total(equal, teacher, weights, known).item() == pytest.approx(0, abs=1e-5)
    swapped = [teacher[:, 0], teacher[:, 2]]
    assert hidden_loss(distance).total(swapped, teacher, weights, known).item() > 1


@pytest.mark.parametrize("distance", DISTANCES)
def test_loss_is_the_weighted_mean_over_pairs(distance):
    outputs, teacher, weights, known = hidden_case()
    expected = 0.0
    for token in range(13):
        for output, position in zip(outputs, (2, 0), strict=True):
            one = DISTANCES[distance](output[token], teacher[token, position]).item()
            expected += float(weights[token]) * one / 2
    assert hidden_loss(distance).total(outputs, teacher, weights, known).item() == pytest.approx(expected, rel=1e-5)
    parts = sum(
        hidden_loss(distance)
        .total([output[span] for output in outputs], teacher[span], weights[span], known[span])
        .item()
        for span in (slice(0, 4), slice(4, 13))
    )
    assert parts == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("distance", DISTANCES)
def test_known_weighted_tokens_alone_have_a_gradient(distance):
    outputs, teacher, weights, known = hidden_case()
    weights[3], known[5] = 0, False
    for grad in torch.autograd.grad(hidden_loss(distance).total(outputs, teacher, weights, known), outputs):
        sizes = grad.abs().amax(-1)
        assert torch.equal(sizes == 0, torch.tensor([token in (3, 5) for token in range(13)]))
        assert sizes[sizes > 0].min() > 1e-6


@pytest.mark.parametrize("distance", DISTANCES)
def test_zero_states_give_finite_values(distance):
    outputs, teacher, weights, known = hidden_case()
    teacher[2] = 0
    outputs[0].data[4] = 0
    value = hidden_loss(distance).total(outputs, teacher, weights, known)
    assert math.isfinite(value.item())
    assert all(torch.isfinite(grad).all() for grad in torch.autograd.grad(value, outputs))


def plain_states(model, prompt: list[int], response: list[int]) -> list[torch.Tensor]:
    """What each layer hands on at the response's positions, by transformers' own hidden states of one text.

    They are the input of every layer, and of the last one its output after the final norm.
    """
    found = model(torch.tensor([[*prompt, *response]]), output_hidden_states=True).hidden_states
    return [states[0, len(prompt) - 1 : -1] for states in found[1:]]


def test_layer_outputs_of_a_batch_equal_single_texts():
    tokenizer = tiny.tokenizer()
    model = tiny.model(len(tokenizer))
    examples = [encode(tokenizer, row) for row in ROWS]
    batch = pad_batch([(example.prompt, example.response) for example in examples])
    logits, outputs = response_layers(model, batch, [3, 0, 1])
    torch.testing.assert_close(logits, response_logits(model, batch))
    none, again = response_layers(model, batch, [3, 0, 1], logits=False)
    assert none.shape == (0, len(tokenizer))
    assert all(torch.equal(one, other) for one, other in zip(outputs, again, strict=True))
    assert not model.get_decoder().layers[0]._forward_hooks, "a hook was left"
    outputs[0] = model.get_decoder().norm(outputs[0])
    alone = [plain_states(model, example.prompt, example.response) for example in examples]
    for output, layer in zip(outputs, (3, 0, 1), strict=True):
        torch.testing.assert_close(output, torch.cat([states[layer] for states in alone]), rtol=1e-4, atol=1e-4)


def test_stored_layer_states_equal_transformers():
    tokenizer = tiny.tokenizer()
    model = tiny.model(len(tokenizer))
    examples = [encode(tokenizer, row) for row in ROWS]
    found = dict(layer_states(model, examples, [0, 2], batch_tokens=100))
    assert sorted(found) == sorted(example.id for example in examples)
    for example in examples:
        states = plain_states(model, example.prompt, example.response)
        expected = torch.stack([states[0], states[2]], 1)
        assert found[example.id].states.dtype == torch.bfloat16
        torch.testing.assert_close(found[example.id].states.float(), expected, rtol=1e-2, atol=1e-2)
    with pytest.raises(UserError, match=r"targets\.layers: the teacher's layers are 0 to 3, got \[4\]"):
        next(layer_states(model, examples, [4], batch_tokens=100))


def test_student_tokens_get_states_of_aligned_teacher_tokens():
    tokenizer = tiny.tokenizer()
    trimmed = trim_tokenizer(tokenizer, select_tokens(tokenizer, {}, 290))
    stored = {}
    for number, row in enumerate(ROWS):
        count = len(encode(tokenizer, row).response)
        rows = torch.arange(count)[:, None, None] + 100 * number
        stored[row["id"]] = StoredStates(rows.expand(-1, 2, 4).bfloat16())
    top = {row["id"]: top_k(torch.zeros(len(encode(tokenizer, row).response), len(tokenizer)), 2) for row in ROWS}
    found = encode_samples(ROWS, trimmed, 256, TeacherTargets(tokenizer, top, stored))
    batch = collate(found)
    assert batch["layer_states"].shape == (len(batch["labels"]), 2, 4)
    assert torch.equal(batch["layer_known"], batch["targets"].known)
    assert not batch["layer_known"].all(), "no token was cut finer, so that the test says little"
    seen = batch["layer_states"][batch["layer_known"]][:, 1, 3].tolist()
    assert seen == [float(100 * number + position) for number, row in enumerate(ROWS)
                    for position in range(len(encode(tokenizer, row).response))]  # fmt: skip
    (cut,) = encode_samples(ROWS[1:2], trimmed, 30, TeacherTargets(tokenizer, top, stored))
    assert len(cut) == 30
    assert len(collate([cut])["layer_states"]) == len(cut.response)


def data(count: int = 8):
    """The samples of the trainer's tests with states of layers, some of which are not known."""
    generator = torch.Generator().manual_seed(3)
    result = []
    for sample in training_samples(count):
        states = torch.randn(len(sample.response), LAYERS, WIDTH, generator=generator).bfloat16()
        positions = [None if position == 1 else position for position in range(len(sample.response))]
        result.append(replace(sample, layers=LayerTargets(states, positions)))
    return result


def student(projection: bool):
    model = tiny.model(VOCAB_SIZE, layers=2, spread=0.1)
    prepare_hidden_loss(model, hidden_section(projection=projection), [3, 5, 9], WIDTH)
    return model


def trained(folder, rows, chosen: HiddenStateLoss, projection: bool = True, steps: int = 1, **changes):
    """The weights after some steps over all samples, the projections among them."""
    model = student(projection)
    optimization = OPTIMIZATION.model_copy(update=changes)
    training = trainer.DistillTrainer(
        Objective(FORWARD_KL, hidden_loss=chosen),
        torch.float32,
        model=model,
        args=trainer.training_arguments(folder, optimization, steps, seed=0).set_optimizer("sgd", learning_rate=1e-2),
        train_dataset=sampler.OrderedDataset(rows, list(range(len(rows))) * steps),
    )
    with tied_embeddings.gradients_in_place(model):
        training.train()
    return {name: value.detach() for name, value in model.named_parameters()}


@pytest.mark.parametrize("hint_fraction", [0.0, 1.0])
@pytest.mark.parametrize("distance", DISTANCES)
def test_micro_batches_and_padding_change_no_step(tmp_path, distance, hint_fraction):
    chosen = hidden_loss(distance, hint_fraction=hint_fraction)
    one_batch = trained(tmp_path / "1", data(), chosen)
    for size, accumulation in ((4, 2), (2, 4), (1, 8)):
        parts = trained(tmp_path / f"{size}", data(), chosen, batch_size=size, gradient_accumulation_steps=accumulation)
        assert max_difference(one_batch, parts) < 1e-6
    extra = data()[0]
    extra = replace(extra, id="long", prompt=[3] * 30, weight=0.0)
    assert max_difference(one_batch, trained(tmp_path / "p", [*data(), extra], chosen, batch_size=9)) < 1e-6


@pytest.mark.parametrize("projection", [True, False])
@pytest.mark.parametrize("hint_fraction", [0.0, 1.0])
def test_a_step_equals_sgd_by_hand(tmp_path, projection, hint_fraction):
    chosen = hidden_loss("mse", hint_fraction=hint_fraction)
    model, batch = student(projection), collate(data())
    logits, outputs = response_layers(model, PaddedBatch.from_tensors(batch), [0, 1])
    if projection:
        outputs = [matrix(output) for matrix, output in zip(model.layer_projections, outputs, strict=True)]
    value = torch.zeros(())
    for token, (weight, known) in enumerate(zip(batch["weights"], batch["layer_known"], strict=True)):
        for output, position in zip(outputs, (2, 0), strict=True):
            if known:
                state = batch["layer_states"][token, position].float()
                value = value + weight * (output[token] - state).square().sum() / state.square().sum() / 2
    if not hint_fraction:
        top = batch["targets"]
        value = 0.5 * value + logit_loss(logits, batch["labels"], batch["weights"], top, FORWARD_KL)
    (value / batch["weights"].sum()).backward()
    by_hand = {
        name: part.detach() if part.grad is None else part.detach() - 1e-2 * part.grad
        for name, part in model.named_parameters()
    }
    found = trained(tmp_path, data(), chosen, projection)
    assert found.keys() == by_hand.keys()
    assert max_difference(by_hand, found) < 1e-6
    start = dict(student(projection).named_parameters())
    moved = {name for name in found if not torch.equal(found[name], start[name])}
    assert "model.layers.1.mlp.down_proj.weight" in moved
    assert ("model.norm.weight" in moved) == (not hint_fraction)
    matrices = {name for name in found if name.startswith(PROJECTIONS)}
    assert len(matrices) == (2 if projection else 0)
    assert matrices <= moved, "a projection that learns nothing"


def test_logits_count_after_the_hint_steps(tmp_path):
    """Two steps, of which the first is the layers' own: SGD steps by hand, one after the other."""
    chosen = hidden_loss("cosine", hint_fraction=0.5, weight=0.0)
    first = trained(tmp_path / "1", data(), replace(chosen, hint_fraction=1.0))
    both = trained(tmp_path / "2", data(), chosen, steps=2)
    model, batch = student(True), collate(data())
    model.load_state_dict(first, strict=False)
    model.tie_weights()
    logits = response_logits(model, PaddedBatch.from_tensors(batch))
    top = batch["targets"]
    total = logit_loss(logits, batch["labels"], batch["weights"], top, FORWARD_KL)
    (total / batch["weights"].sum()).backward()
    by_hand = {
        name: part.detach() if part.grad is None else part.detach() - 1e-2 * part.grad
        for name, part in model.named_parameters()
    }
    assert max_difference(by_hand, both) < 1e-6
    assert max_difference(first, both) > 1e-5


def test_projections_start_as_identity_and_are_removed():
    model = tiny.model(VOCAB_SIZE, layers=2)
    before = set(model.state_dict())
    prepare_hidden_loss(model, hidden_section(), [3, 9], WIDTH + 8)
    for matrix in model.layer_projections:
        assert torch.equal(matrix.weight, torch.eye(WIDTH + 8, WIDTH))
    state = torch.randn(3, WIDTH)
    assert torch.equal(projected(model, [state, state])[1][:, :WIDTH], state)
    remove_projections(model)
    assert set(model.state_dict()) == before
    remove_projections(model)
    assert torch.equal(projected(model, [state])[0], state)


def test_unfitting_layers_and_widths_are_refused():
    model = tiny.model(VOCAB_SIZE, layers=2)
    with pytest.raises(UserError, match=r"the student's layers are 0 to 1, got \[0, 2\]"):
        prepare_hidden_loss(model, hidden_section(layer_pairs=[[3, 0], [9, 2]]), [3, 9], WIDTH)
    with pytest.raises(UserError, match="projection: must be true, since the student's states have 32 values and"):
        prepare_hidden_loss(model, hidden_section(projection=False), [3, 9], WIDTH + 1)
    prepare_hidden_loss(model, hidden_section(projection=False), [3, 9], WIDTH)
    assert not hasattr(model, PROJECTIONS)


def test_pairs_find_stored_layers_and_hints_come_first():
    settings = hidden_section(layer_pairs=[[20, 1], [3, 0]], distance="mse", weight=2.0, hint_fraction=0.26)
    found = prepare_hidden_loss(tiny.model(VOCAB_SIZE, layers=2), settings, [3, 9, 20], WIDTH)
    assert found == HiddenStateLoss(layers=[1, 0], stored=[2, 0], distance="mse", weight=2.0, hint_fraction=0.26)
    assert [found.factor(step, 10) for step in range(10)] == [1.0] * 3 + [2.0] * 7
    assert [found.is_hint(step, 10) for step in (2, 3)] == [True, False]
