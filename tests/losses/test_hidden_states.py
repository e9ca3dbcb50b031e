"""The loss of layers: its formulas, which positions it sees, its matrices, and what a step makes of it."""

import math
from dataclasses import replace

import pytest
import tiny
import torch
from training_samples import KL, SCHEDULE, VOCABULARY, furthest
from training_samples import samples as logit_samples

from distill.core.errors import UserError
from distill.losses import divergences, hidden_states
from distill.losses.hidden_states import DISTANCES, LayerLoss
from distill.modeling.batches import PaddedBatch, pad_batch
from distill.modeling.chat import encode
from distill.modeling.forward import response_layers, response_logits
from distill.params import train
from distill.students import vocabulary
from distill.targets import store
from distill.targets.teacher_pass import layer_states
from distill.training import sampler, tied_embeddings, trainer
from distill.training.dataset import Layers, collate, samples

LAYERS, WIDTH = 3, 32  # stored of the teacher; of tiny.model and its teacher alike
ROWS = [
    tiny.weighted("ants", "What is honey?", 2.0),
    tiny.weighted("jazz", "people like jazz, maple and the fox", 0.5),
    tiny.weighted("north", "kites", 1.0),
]


def case(tokens: int = 13):
    generator = torch.Generator().manual_seed(0)
    outputs = [torch.randn(tokens, WIDTH, generator=generator).requires_grad_() for _ in range(2)]
    teacher = torch.randn(tokens, LAYERS, WIDTH, generator=generator)
    weights = torch.rand(tokens, generator=generator) + 0.1
    return outputs, teacher, weights, torch.ones(tokens, dtype=torch.bool)


def wanted(**changes: object) -> train.LayerLoss:
    given = {"pairs": [[9, 0], [3, 1]], "loss": "cosine", "projection": True, "weight": 0.5, "alone": 0.0}
    return train.LayerLoss(**given | changes)


def loss(distance: str = "cosine", **changes: object) -> LayerLoss:
    """That of `wanted`, with layers 3, 5 and 9 of the teacher stored."""
    return replace(LayerLoss(layers=[0, 1], places=[2, 0], distance=distance, weight=0.5, alone=0.0), **changes)


def test_the_distances_are_their_formulas():
    student, teacher = torch.tensor([[3.0, 4.0]]), torch.tensor([[4.0, 3.0]])
    assert DISTANCES["cosine"](student, teacher).item() == pytest.approx(1 - 24 / 25)
    assert DISTANCES["mse"](student, teacher).item() == pytest.approx(1 / 12.5)
    assert DISTANCES["mse"](torch.zeros(1, 2), teacher).item() == pytest.approx(1)
    assert DISTANCES["mse"](10 * student, 10 * teacher).item() == pytest.approx(1 / 12.5), "whatever the size of both"
    assert DISTANCES["cosine"](-3 * teacher, teacher).item() == pytest.approx(2)


@pytest.mark.parametrize("distance", DISTANCES)
def test_it_is_0_where_the_student_has_the_teachers_states(distance):
    _, teacher, weights, known = case()
    equal = [teacher[:, 2], teacher[:, 0]]
    assert loss(distance).total(equal, teacher, weights, known).item() == pytest.approx(0, abs=1e-5)
    swapped = [teacher[:, 0], teacher[:, 2]]
    assert loss(distance).total(swapped, teacher, weights, known).item() > 1


@pytest.mark.parametrize("distance", DISTANCES)
def test_it_is_the_weighted_sum_over_tokens_of_the_mean_over_pairs(distance):
    outputs, teacher, weights, known = case()
    expected = 0.0
    for token in range(13):
        for output, place in zip(outputs, (2, 0), strict=True):
            one = DISTANCES[distance](output[token], teacher[token, place]).item()
            expected += float(weights[token]) * one / 2
    assert loss(distance).total(outputs, teacher, weights, known).item() == pytest.approx(expected, rel=1e-5)
    parts = sum(
        loss(distance).total([output[span] for output in outputs], teacher[span], weights[span], known[span]).item()
        for span in (slice(0, 4), slice(4, 13))
    )
    assert parts == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("distance", DISTANCES)
def test_every_pair_and_every_token_has_a_gradient_and_those_without_weight_or_teacher_have_none(distance):
    outputs, teacher, weights, known = case()
    weights[3], known[5] = 0, False
    for grad in torch.autograd.grad(loss(distance).total(outputs, teacher, weights, known), outputs):
        sizes = grad.abs().amax(-1)
        assert torch.equal(sizes == 0, torch.tensor([token in (3, 5) for token in range(13)]))
        assert sizes[sizes > 0].min() > 1e-6


@pytest.mark.parametrize("distance", DISTANCES)
def test_a_state_that_is_all_zeros_gives_finite_values(distance):
    outputs, teacher, weights, known = case()
    teacher[2] = 0
    outputs[0].data[4] = 0
    value = loss(distance).total(outputs, teacher, weights, known)
    assert math.isfinite(value.item())
    assert all(torch.isfinite(grad).all() for grad in torch.autograd.grad(value, outputs))


def plain_states(network, prompt: list[int], response: list[int]) -> list[torch.Tensor]:
    """What each layer hands on at the response's positions, by transformers' own hidden states of one text.

    They are the input of every layer, and of the last one its output after the final norm.
    """
    found = network(torch.tensor([[*prompt, *response]]), output_hidden_states=True).hidden_states
    return [states[0, len(prompt) - 1 : -1] for states in found[1:]]


def test_what_layers_hand_on_in_a_ragged_batch_is_that_of_each_text_alone():
    tokenizer = tiny.tokenizer()
    network = tiny.model(len(tokenizer))
    examples = [encode(tokenizer, row) for row in ROWS]
    batch = pad_batch([(example.prompt, example.response) for example in examples])
    logits, outputs = response_layers(network, batch, [3, 0, 1])
    torch.testing.assert_close(logits, response_logits(network, batch))
    none, again = response_layers(network, batch, [3, 0, 1], logits=False)
    assert none.shape == (0, len(tokenizer))
    assert all(torch.equal(one, other) for one, other in zip(outputs, again, strict=True))
    assert not network.get_decoder().layers[0]._forward_hooks, "a hook was left"
    outputs[0] = network.get_decoder().norm(outputs[0])
    alone = [plain_states(network, example.prompt, example.response) for example in examples]
    for output, layer in zip(outputs, (3, 0, 1), strict=True):
        torch.testing.assert_close(output, torch.cat([states[layer] for states in alone]), rtol=1e-4, atol=1e-4)


def test_what_is_stored_of_the_teachers_layers_is_what_they_hand_on():
    tokenizer = tiny.tokenizer()
    network = tiny.model(len(tokenizer))
    examples = [encode(tokenizer, row) for row in ROWS]
    found = dict(layer_states(network, examples, [0, 2], batch_tokens=100))
    assert sorted(found) == sorted(example.id for example in examples)
    for example in examples:
        states = plain_states(network, example.prompt, example.response)
        expected = torch.stack([states[0], states[2]], 1)
        assert found[example.id].states.dtype == torch.bfloat16
        torch.testing.assert_close(found[example.id].states.float(), expected, rtol=1e-2, atol=1e-2)
    with pytest.raises(UserError, match=r"weight\.layers: the teacher's layers are 0 to 3, given \[4\]"):
        next(layer_states(network, examples, [4], batch_tokens=100))


def test_each_of_the_students_tokens_has_the_states_of_the_teachers_token_that_starts_there_or_none():
    whole = tiny.tokenizer()
    small = vocabulary.trim(whole, vocabulary.choose(whole, {}, 290))
    stored = {}
    for number, row in enumerate(ROWS):
        count = len(encode(whole, row).response)
        rows = torch.arange(count)[:, None, None] + 100 * number
        stored[row["id"]] = store.States(rows.expand(-1, 2, 4).bfloat16())
    top = {row["id"]: store.top_k(torch.zeros(len(encode(whole, row).response), len(whole)), 2) for row in ROWS}
    found = samples(ROWS, small, 256, whole, top.items(), stored.items())
    batch = collate(found)
    assert batch["layer_states"].shape == (len(batch["labels"]), 2, 4)
    assert torch.equal(batch["layer_known"], batch["top_known"])
    assert not batch["layer_known"].all(), "no token was cut finer, so that the test says little"
    seen = batch["layer_states"][batch["layer_known"]][:, 1, 3].tolist()
    assert seen == [float(100 * number + place) for number, row in enumerate(ROWS)
                    for place in range(len(encode(whole, row).response))]  # fmt: skip
    (cut,) = samples(ROWS[1:2], small, 30, whole, top.items(), stored.items())
    assert len(cut) == 30
    assert len(collate([cut])["layer_states"]) == len(cut.response)


def data(count: int = 8):
    """The samples of the trainer's tests with states of layers, some of which are not known."""
    generator = torch.Generator().manual_seed(3)
    result = []
    for sample in logit_samples(count):
        states = torch.randn(len(sample.response), LAYERS, WIDTH, generator=generator).bfloat16()
        places = [None if place == 1 else place for place in range(len(sample.response))]
        result.append(replace(sample, layers=Layers(states, places)))
    return result


def student(projection: bool):
    network = tiny.model(VOCABULARY, layers=2, spread=0.1)
    hidden_states.prepare(network, wanted(projection=projection), [3, 5, 9], WIDTH)
    return network


def trained(folder, rows, chosen: LayerLoss, projection: bool = True, steps: int = 1, **changes):
    """The weights after some steps over all samples, the projections among them."""
    network = student(projection)
    schedule = SCHEDULE.model_copy(update=changes)
    training = trainer.DistillTrainer(
        settings=KL,
        autocast=torch.float32,
        layer_loss=chosen,
        model=network,
        args=trainer.arguments(folder, schedule, steps, seed=0).set_optimizer("sgd", learning_rate=1e-2),
        train_dataset=sampler.Ordered(rows, list(range(len(rows))) * steps),
    )
    with tied_embeddings.gradients_in_place(network):
        training.train()
    return {name: value.detach() for name, value in network.named_parameters()}


@pytest.mark.parametrize("alone", [0.0, 1.0])
@pytest.mark.parametrize("distance", DISTANCES)
def test_a_step_is_the_same_in_one_batch_and_in_micro_batches_and_whatever_the_padding(tmp_path, distance, alone):
    chosen = loss(distance, alone=alone)
    whole = trained(tmp_path / "1", data(), chosen)
    for size, accumulation in ((4, 2), (2, 4), (1, 8)):
        parts = trained(tmp_path / f"{size}", data(), chosen, batch_size=size, gradient_accumulation=accumulation)
        assert furthest(whole, parts) < 1e-6
    extra = data()[0]
    extra = replace(extra, id="long", prompt=[3] * 30, weight=0.0)
    assert furthest(whole, trained(tmp_path / "p", [*data(), extra], chosen, batch_size=9)) < 1e-6


@pytest.mark.parametrize("projection", [True, False])
@pytest.mark.parametrize("alone", [0.0, 1.0])
def test_a_step_is_the_gradient_of_both_losses_or_of_the_layers_alone_over_weights_times_tokens(
    tmp_path, projection, alone
):
    chosen = loss("mse", alone=alone)
    network, batch = student(projection), collate(data())
    logits, outputs = response_layers(network, PaddedBatch.from_tensors(batch), [0, 1])
    if projection:
        outputs = [matrix(output) for matrix, output in zip(network.layer_projections, outputs, strict=True)]
    value = torch.zeros(())
    for token, (weight, known) in enumerate(zip(batch["weights"], batch["layer_known"], strict=True)):
        for output, place in zip(outputs, (2, 0), strict=True):
            if known:
                state = batch["layer_states"][token, place].float()
                value = value + weight * (output[token] - state).square().sum() / state.square().sum() / 2
    if not alone:
        top = divergences.TopK(*(batch[f"top_{name}"] for name in ("ids", "log_probs", "tail", "known")))
        value = 0.5 * value + divergences.total(logits, batch["labels"], batch["weights"], top, KL)
    (value / batch["weights"].sum()).backward()
    by_hand = {
        name: part.detach() if part.grad is None else part.detach() - 1e-2 * part.grad
        for name, part in network.named_parameters()
    }
    found = trained(tmp_path, data(), chosen, projection)
    assert found.keys() == by_hand.keys()
    assert furthest(by_hand, found) < 1e-6
    start = dict(student(projection).named_parameters())
    moved = {name for name in found if not torch.equal(found[name], start[name])}
    assert "model.layers.1.mlp.down_proj.weight" in moved
    assert ("model.norm.weight" in moved) == (not alone)
    matrices = {name for name in found if name.startswith(hidden_states.NAME)}
    assert len(matrices) == (2 if projection else 0)
    assert matrices <= moved, "a projection that learns nothing"


def test_after_the_first_steps_the_logits_count_again(tmp_path):
    """Two steps, of which the first is the layers' own: SGD steps by hand, one after the other."""
    chosen = loss("cosine", alone=0.5, weight=0.0)
    first = trained(tmp_path / "1", data(), replace(chosen, alone=1.0))
    both = trained(tmp_path / "2", data(), chosen, steps=2)
    network, batch = student(True), collate(data())
    network.load_state_dict(first, strict=False)
    network.tie_weights()
    logits = response_logits(network, PaddedBatch.from_tensors(batch))
    top = divergences.TopK(*(batch[f"top_{name}"] for name in ("ids", "log_probs", "tail", "known")))
    total = divergences.total(logits, batch["labels"], batch["weights"], top, KL)
    (total / batch["weights"].sum()).backward()
    by_hand = {
        name: part.detach() if part.grad is None else part.detach() - 1e-2 * part.grad
        for name, part in network.named_parameters()
    }
    assert furthest(by_hand, both) < 1e-6
    assert furthest(first, both) > 1e-5


def test_projections_begin_as_the_identity_and_are_no_part_of_the_student():
    network = tiny.model(VOCABULARY, layers=2)
    before = set(network.state_dict())
    hidden_states.prepare(network, wanted(), [3, 9], WIDTH + 8)
    for matrix in network.layer_projections:
        assert torch.equal(matrix.weight, torch.eye(WIDTH + 8, WIDTH))
    state = torch.randn(3, WIDTH)
    assert torch.equal(hidden_states.projected(network, [state, state])[1][:, :WIDTH], state)
    hidden_states.remove_projections(network)
    assert set(network.state_dict()) == before
    hidden_states.remove_projections(network)
    assert torch.equal(hidden_states.projected(network, [state])[0], state)


def test_layers_and_widths_that_do_not_fit_are_refused():
    network = tiny.model(VOCABULARY, layers=2)
    with pytest.raises(UserError, match=r"the student's layers are 0 to 1, given \[0, 2\]"):
        hidden_states.prepare(network, wanted(pairs=[[3, 0], [9, 2]]), [3, 9], WIDTH)
    with pytest.raises(UserError, match="projection: must be true, since the student's states have 32 values and"):
        hidden_states.prepare(network, wanted(projection=False), [3, 9], WIDTH + 1)
    hidden_states.prepare(network, wanted(projection=False), [3, 9], WIDTH)
    assert not hasattr(network, hidden_states.NAME)


def test_pairs_name_the_teachers_layers_as_they_are_stored_and_the_first_steps_are_the_layers_own():
    settings = wanted(pairs=[[20, 1], [3, 0]], loss="mse", weight=2.0, alone=0.26)
    found = hidden_states.prepare(tiny.model(VOCABULARY, layers=2), settings, [3, 9, 20], WIDTH)
    assert found == LayerLoss(layers=[1, 0], places=[2, 0], distance="mse", weight=2.0, alone=0.26)
    assert [found.factor(step, 10) for step in range(10)] == [1.0] * 3 + [2.0] * 7
    assert [found.is_alone(step, 10) for step in (2, 3)] == [True, False]
