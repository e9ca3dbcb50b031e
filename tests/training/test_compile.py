"""Layers by torch.compile: the same results to their last digits, and a refusal where there is no compiler."""

import pytest
import tiny
import torch

from distill.core.errors import UserError
from distill.modeling.batches import PaddedBatch
from distill.modeling.forward import response_logits
from distill.training.compile import compiled

IDS = torch.tensor([[5, 6, 7, 8, 9, 10], [5, 6, 9, 3, 2, 11], [5, 6, 3, 3, 12, 1]])
RESPONSE_MASK = torch.tensor([[0, 0, 0, 1, 1, 0]] * 3, dtype=torch.bool)


def gradients(model) -> list[torch.Tensor]:
    """The logits and the gradients of their mean square, of a batch whose rows begin alike."""
    logits = response_logits(model, PaddedBatch(IDS, torch.ones_like(IDS), RESPONSE_MASK))
    logits.square().mean().backward()
    return [logits.detach(), *(weight.grad for weight in model.parameters())]


@pytest.mark.slow
@pytest.mark.timeout(300)  # a compiler runs
def test_compiled_layers_give_the_same_gradients():
    plain, other = (tiny.model(50, layers=2, spread=0.1) for _ in range(2))
    with compiled(other, enabled=True):
        assert all(layer._compiled_call_impl for layer in other.model.layers)
        actual = gradients(other)
    for one, two in zip(gradients(plain), actual, strict=True):
        torch.testing.assert_close(one, two, atol=1e-5, rtol=1e-4)
    assert not any(layer._compiled_call_impl for layer in other.model.layers)
    assert list(other.state_dict()) == list(plain.state_dict())


@pytest.fixture
def no_compiler(tmp_path):
    import torch._inductor.config

    with torch._inductor.config.patch("cpp.cxx", (str(tmp_path / "no-compiler"),)):
        yield


@pytest.mark.usefixtures("no_compiler")
def test_a_missing_compiler_is_refused():
    message = r"train.compile: true needs a C\+\+ compiler.*Install one or set it to false"
    with pytest.raises(UserError, match=message), compiled(tiny.model(50, layers=1), enabled=True):
        pass


@pytest.mark.usefixtures("no_compiler")
def test_nothing_is_compiled_by_default():
    model = tiny.model(50, layers=1)
    with compiled(model, enabled=False):
        assert model.model.layers[0]._compiled_call_impl is None
