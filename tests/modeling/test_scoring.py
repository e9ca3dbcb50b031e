"""Teacher-forced scores, and logits at chosen positions."""

import pytest
import tiny
import torch

from distill.modeling.chat import Example
from distill.modeling.forward import logits_at
from distill.modeling.scoring import score_examples

EXAMPLES = [Example("a", [1, 5, 6], [7, 8, 2]), Example("b", [1, 9], [10, 2]), Example("c", [1, 4, 4, 4, 4], [3])]


@pytest.fixture(scope="module")
def model():
    return tiny.model(len(tiny.tokenizer()))


def test_logits_at_positions_equal_those_of_all_and_leave_no_hook(model):
    ids = torch.tensor([[1, 5, 6, 7], [1, 9, 10, 2]])
    positions = torch.tensor([[False, True, False, True], [True, False, False, False]])
    logits = model(ids).logits
    with logits_at(model, positions):
        chosen = model(ids).logits
    assert torch.equal(chosen, logits[positions])
    assert torch.equal(model(ids).logits, logits)


@pytest.mark.parametrize("batch_tokens", [1, 12, 1000])
def test_scores_are_the_log_softmax_for_any_batch_size(model, batch_tokens):
    by_index = dict(score_examples(model, EXAMPLES, batch_tokens))
    for index, example in enumerate(EXAMPLES):
        logits = model(torch.tensor([example.prompt + example.response])).logits[0].log_softmax(-1)
        start = len(example.prompt) - 1
        expected = [float(logits[start + offset, token]) for offset, token in enumerate(example.response)]
        assert by_index[index].log_probs == pytest.approx(expected, abs=1e-4)
        assert by_index[index].ranked_first == [
            bool(logits[start + offset].argmax() == token) for offset, token in enumerate(example.response)
        ]
