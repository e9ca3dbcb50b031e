"""Layers by torch.compile: the same results to their last digits, and a refusal where there is no compiler."""

import pytest
import tiny
import torch

from distill.core.errors import UserError
from distill.modeling.forward import response_logits
from distill.training.compile import compiled

IDS = torch.tensor([[5, 6, 7, 8, 9, 10], [5, 6, 9, 3, 2, 11], [5, 6, 3, 3, 12, 1]])
PREDICTS = torch.tensor([[0, 0, 0, 1, 1, 0]] * 3, dtype=torch.bool)


def gradients(model) -> list[torch.Tensor]:
    """The logits and the gradients of their mean square, of a batch whose rows begin alike."""
    logits = response_logits(model, IDS, torch.ones_like(IDS), PREDICTS)
    logits.square().mean().backward()
    return [logits.detach(), *(weight.grad for weight in model.parameters())]


@pytest.mark.slow
@pytest.mark.timeout(300)  # a compiler runs
def test_compiled_layers_give_the_same_logits_and_gradients_and_are_plain_afterwards():
    plain, other = (tiny.model(50, layers=2, spread=0.1) for _ in range(2))
    with compiled(other, wanted=True):
        assert all(layer._compiled_call_impl for layer in other.model.layers)
        found = gradients(other)
    for one, two in zip(gradients(plain), found, strict=True):
        torch.testing.assert_close(one, two, atol=1e-5, rtol=1e-4)
    assert not any(layer._compiled_call_impl for layer in other.model.layers)
    assert list(other.state_dict()) == list(plain.state_dict())


@pytest.fixture
def no_compiler(tmp_path):
    import torch._inductor.config

    with torch._inductor.config.patch("cpp.cxx", (str(tmp_path / "no-compiler"),)):
        yield


@pytest.mark.usefixtures("no_compiler")
def test_where_there_is_no_compiler_it_is_refused_with_the_way_out():
    message = r"train.compile: true needs a C\+\+ compiler.*set train.compile: false"
    with pytest.raises(UserError, match=message), compiled(tiny.model(50, layers=1), wanted=True):
        pass


@pytest.mark.usefixtures("no_compiler")
def test_without_it_nothing_is_compiled_and_no_compiler_is_looked_for():
    model = tiny.model(50, layers=1)
    with compiled(model, wanted=False):
        assert model.model.layers[0]._compiled_call_impl is None
