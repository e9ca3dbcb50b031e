"""Logits at response positions, with the beginning that rows share computed once."""

import pytest
import tiny
import torch

from distill import logits
from distill.batches import padded

SYSTEM = [1, 7, 9, 4]
# behind the first difference there is a column of 12 in all rows, as templates and like questions have it
PAIRS = [([*SYSTEM, 11, 12, 6], [13, 14, 2]), ([*SYSTEM, 15, 12, 6], [16, 2]), ([*SYSTEM, 11, 12, 17, 18], [19])]


def plain(model: torch.nn.Module, pairs: list) -> torch.Tensor:
    ids, mask, predicts = padded(pairs)
    return model(input_ids=ids, attention_mask=mask).logits[predicts]


@pytest.fixture
def model():
    return tiny.model(50, layers=2, spread=0.1)


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
def test_logits_and_gradients_are_those_of_the_whole_batch(model, attention):
    model.set_attn_implementation(attention)
    gradients = []
    for compute in (plain, lambda model, pairs: logits.response_logits(model, *padded(pairs))):
        model.zero_grad()
        result = compute(model, PAIRS)
        result.logsumexp(-1).sum().backward()
        gradients.append((result.detach(), *(part.grad.clone() for part in model.parameters())))
    assert len(gradients[0][0]) == 6
    for one, other in zip(*gradients, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)


def test_a_ragged_batch_has_the_logits_and_the_states_of_batches_of_one(model):
    states = logits.response_states(model, *padded(PAIRS))
    for run in (logits.response_logits, logits.response_states):
        alone = torch.cat([run(model, *padded([pair])) for pair in PAIRS])
        torch.testing.assert_close(run(model, *padded(PAIRS)), alone, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(model.get_output_embeddings()(states), logits.response_logits(model, *padded(PAIRS)))
    assert not model.get_output_embeddings()._forward_pre_hooks


def test_columns_are_shared_up_to_the_first_difference_and_before_the_first_prediction():
    ids, _, predicts = padded(PAIRS)
    assert logits.shared_columns(ids, predicts) == len(SYSTEM)
    same = [([1, 7, 9], [5, 2]), ([1, 7, 9], [5, 2])]
    ids, _, predicts = padded(same)
    assert logits.shared_columns(ids, predicts) == 2, "the last prompt token predicts, so it is needed in every row"
    ids, _, predicts = padded(same[:1])
    assert logits.shared_columns(ids, predicts) == 0
    ids, _, predicts = padded([([1, 7], [2]), ([3, 7], [2])])
    assert logits.shared_columns(ids, predicts) == 0


def test_a_shared_beginning_goes_through_the_model_once(model):
    seen = []
    model.model.layers[0].register_forward_pre_hook(lambda _, inputs: seen.append(tuple(inputs[0].shape[:2])))
    logits.response_logits(model, *padded(PAIRS))
    assert seen == [(1, len(SYSTEM)), (len(PAIRS), logits.COLUMN_STEP)]


def test_batches_of_like_size_have_the_same_shapes(model):
    seen = set()
    model.model.layers[0].register_forward_pre_hook(lambda _, inputs: seen.add(tuple(inputs[0].shape)))
    model.get_output_embeddings().register_forward_hook(lambda _, inputs, __: seen.add(tuple(inputs[0].shape)))
    for response in range(1, 6):
        pairs = [([1], [2] * response), ([3], [4])]
        assert len(logits.response_logits(model, *padded(pairs))) == response + 1
    width = model.config.hidden_size
    assert seen == {(2, logits.COLUMN_STEP, width), (logits.ROW_STEP, width)}


def test_a_wrapped_model_and_one_without_cache_get_the_whole_batch(model):
    wrapper = torch.nn.Module()
    wrapper.forward = model.forward
    whole = logits.response_logits(model, *padded(PAIRS), wrapper=wrapper)
    torch.testing.assert_close(whole, plain(model, PAIRS))
    model.config.use_cache = False
    torch.testing.assert_close(logits.response_logits(model, *padded(PAIRS)), plain(model, PAIRS))
