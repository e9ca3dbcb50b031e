"""An embedding whose gradients are added in place learns what a plain one does."""

import copy
from contextlib import nullcontext
from dataclasses import replace

import pytest
import tiny
import torch
from training_samples import VOCAB_SIZE, max_difference, training_samples

from distill.losses.logit_loss import CROSS_ENTROPY, logit_loss
from distill.modeling.batches import PaddedBatch
from distill.modeling.forward import response_logits
from distill.training import tied_embeddings
from distill.training.dataset import collate


def student_model():
    """A model in which the token that pads, 2, is like the others: such models begin with a row of zeros."""
    model = tiny.model(VOCAB_SIZE, layers=2, spread=0.1)
    with torch.no_grad():
        model.get_input_embeddings().weight[2] = model.get_input_embeddings().weight[3]
    return model


def gradients(model, in_place: bool) -> dict[str, torch.Tensor]:
    """Of two micro-batches of cross-entropy, as in gradient accumulation, with a token in prompts that pads too."""
    batch = collate([replace(sample, prompt=[5, 2, *sample.prompt]) for sample in training_samples()])
    with tied_embeddings.gradients_in_place(model) if in_place else nullcontext():
        for _ in range(2):
            logits = response_logits(model, PaddedBatch.from_tensors(batch))
            logit_loss(logits, batch["labels"], batch["weights"], None, CROSS_ENTROPY).backward()
    return {name: value.grad for name, value in model.named_parameters()}


@pytest.mark.parametrize("tied", [True, False])
def test_in_place_gradients_equal_torchs(tied):
    plain, other = student_model(), student_model()
    if not tied:
        for model in (plain, other):
            model.lm_head.weight = torch.nn.Parameter(model.lm_head.weight.clone())
    assert plain.get_input_embeddings().padding_idx == 2
    plain.get_input_embeddings().padding_idx = None
    expected = gradients(plain, in_place=False)
    actual = gradients(other, in_place=True)
    assert expected["model.embed_tokens.weight"][2].abs().max() > 1e-3
    assert max_difference(expected, actual) < 1e-5
    assert not other.get_input_embeddings()._forward_hooks


def test_a_copied_model_has_gradients_of_its_own():
    model = student_model()
    plain = copy.deepcopy(model)
    plain.get_input_embeddings().padding_idx = None
    expected = gradients(plain, in_place=False)
    with tied_embeddings.gradients_in_place(model):
        actual = gradients(copy.deepcopy(model), in_place=False)
    assert max_difference(expected, actual) < 1e-5
    assert model.get_input_embeddings().weight.grad is None


def test_a_scaled_embedding_is_left_alone():
    model = tiny.model(VOCAB_SIZE, layers=1)
    scaled = type("Scaled", (torch.nn.Embedding,), {})
    model.get_input_embeddings().__class__ = scaled
    with tied_embeddings.gradients_in_place(model):
        assert not model.get_input_embeddings()._forward_hooks
