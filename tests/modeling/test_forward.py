"""Logits at response positions, of batches without their padding."""

import pytest
import tiny
import torch

from distill.modeling import forward, packing
from distill.modeling.batches import pad_batch

SYSTEM = [1, 7, 9, 4]
# behind the first difference there is a column of 12 in all rows, as templates and like questions have it
PAIRS = [([*SYSTEM, 11, 12, 6], [13, 14, 2]), ([*SYSTEM, 15, 12, 6], [16, 2]), ([*SYSTEM, 11, 12, 17, 18], [19])]


def plain(model: torch.nn.Module, pairs: list) -> torch.Tensor:
    batch = pad_batch(pairs)
    return model(input_ids=batch.input_ids, attention_mask=batch.attention_mask).logits[batch.response_mask]


@pytest.fixture
def model():
    return tiny.model(50, layers=2, spread=0.1)


def test_a_ragged_batch_has_the_logits_and_the_states_of_batches_of_one(model):
    states = forward.response_states(model, pad_batch(PAIRS))
    for run in (forward.response_logits, forward.response_states):
        alone = torch.cat([run(model, pad_batch([pair])) for pair in PAIRS])
        torch.testing.assert_close(run(model, pad_batch(PAIRS)), alone, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(model.get_output_embeddings()(states), forward.response_logits(model, pad_batch(PAIRS)))
    assert not model.get_output_embeddings()._forward_pre_hooks


def test_only_tokens_go_through_the_model_and_a_shared_beginning_once(model):
    seen = []
    model.model.embed_tokens.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].tolist()))
    forward.response_logits(model, pad_batch(PAIRS))
    own = [token for prompt, response in PAIRS for token in [*prompt, *response][len(SYSTEM) :]]
    assert len(seen) == 1
    assert seen[0][0][: len(SYSTEM) + len(own)] == [*SYSTEM, *own]
    assert len(seen[0][0]) == packing.TOKEN_STEP


def test_batches_of_like_size_have_the_same_shapes(model, monkeypatch):
    seen, masks = set(), set()
    pack = packing.pack

    def recorded(*given):
        masks.add((packed := pack(*given)).mask.shape)
        return packed

    monkeypatch.setattr(packing, "pack", recorded)
    for part in (model.model.layers[0], model.model.layers[-1].mlp.up_proj, model.get_output_embeddings()):
        part.register_forward_hook(lambda _, inputs, __: seen.add(inputs[0].shape[:-1].numel()))
    for response in range(1, 6):
        pairs = [([1], [2] * response), ([3], [4])]
        assert len(forward.response_logits(model, pad_batch(pairs))) == response + 1
    assert seen == {packing.TOKEN_STEP}
    assert masks == {(2, 1, packing.COLUMN_STEP, packing.COLUMN_STEP)}


def test_the_last_feed_forward_part_is_computed_where_a_token_is_predicted(model, monkeypatch):
    monkeypatch.setattr(packing, "TOKEN_STEP", 1)
    seen = []
    for layer in model.model.layers:
        layer.mlp.up_proj.register_forward_hook(lambda _, inputs, __: seen.append(len(inputs[0][0])))
    forward.response_logits(model, pad_batch(PAIRS))
    everything = len(SYSTEM) + sum(len(prompt) + len(response) - len(SYSTEM) for prompt, response in PAIRS)
    assert seen == [everything, 6]
    seen.clear()
    model(input_ids=torch.tensor([SYSTEM]))
    assert seen == [len(SYSTEM)] * 2, "afterwards it is as it was"


def test_the_parameters_of_late_parts_are_those_of_the_output_and_the_last_feed_forward_part(model):
    last = sum(weight.numel() for name, weight in model.named_parameters() if "layers.1.mlp" in name)
    assert forward.response_only_parameters(model) == last + model.get_output_embeddings().weight.numel()


def test_a_wrapped_model_and_one_that_can_not_be_packed_get_the_whole_batch(model):
    seen = []
    model.model.embed_tokens.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].shape))
    batch = pad_batch(PAIRS)
    wrapper = torch.nn.Module()
    wrapper.forward = model.forward
    whole = forward.response_logits(model, batch, wrapper=wrapper)
    torch.testing.assert_close(whole, plain(model, PAIRS))
    model.config.sliding_window = 4
    torch.testing.assert_close(forward.response_logits(model, batch), plain(model, PAIRS))
    assert set(seen) == {batch.input_ids.shape}


def test_a_model_is_as_it_was_after_an_error(model):
    handle = model.model.norm.register_forward_pre_hook(lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        forward.response_logits(model, pad_batch(PAIRS))
    handle.remove()
    assert model.config._attn_implementation in packing.PACKED
    for part in (model.model.layers[-1].mlp, model.get_output_embeddings()):
        assert not part._forward_pre_hooks
        assert not part._forward_hooks
