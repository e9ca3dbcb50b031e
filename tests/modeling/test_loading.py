"""Checkpoints that load whole or not at all."""

import json

import pytest
import tiny
import torch
from safetensors.torch import load_file, save_file

from distill.core.errors import UserError
from distill.modeling import loading

WEIGHT = "model.layers.0.mlp.up_proj.weight"


@pytest.fixture
def checkpoint(tmp_path):
    tokenizer = tiny.tokenizer()
    loading.save_model(tiny.model(len(tokenizer)), tokenizer, tmp_path)
    return tmp_path


def edit(folder, change) -> None:
    weights = load_file(folder / "model.safetensors")
    change(weights)
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


def test_a_saved_model_loads_with_the_same_weights(checkpoint):
    model, tokenizer = loading.load_model(str(checkpoint), torch.float32)
    saved = load_file(checkpoint / "model.safetensors")
    assert model.get_output_embeddings().weight is model.get_input_embeddings().weight, "tied weights are not missing"
    assert all(torch.equal(saved[name], weight) for name, weight in model.named_parameters())
    assert tokenizer.get_vocab() == tiny.tokenizer().get_vocab()
    assert not model.training


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda weights: weights.pop(WEIGHT), f"got 1 missing: {WEIGHT}"),
        (lambda weights: weights.update({"model.layers.9.extra": torch.ones(1)}), "got 1 unexpected"),
        (lambda weights: weights.update({WEIGHT: torch.ones(3, 3)}), "cannot be loaded"),
        (lambda weights: weights[WEIGHT][0].fill_(torch.nan), f"got 1 not finite: {WEIGHT}"),
    ],
    ids=["missing", "unexpected", "other shape", "NaN"],
)
def test_a_checkpoint_that_does_not_fit_is_refused(checkpoint, change, message):
    edit(checkpoint, change)
    with pytest.raises(UserError, match=message):
        loading.load_model(str(checkpoint), torch.float32)


def test_a_missing_model_or_package_is_a_message(tmp_path):
    for name in ("package:no_such_package/a.gguf", "package:distill/no.gguf", str(tmp_path / "a.gguf"), str(tmp_path)):
        with pytest.raises(UserError, match="model"):
            loading.load_model(name, torch.float32)


def test_a_pickled_model_is_refused(tmp_path):
    tokenizer = tiny.tokenizer()
    tokenizer.save_pretrained(tmp_path)
    small = tiny.model(len(tokenizer))
    small.config.save_pretrained(tmp_path)
    torch.save(small.state_dict(), tmp_path / "pytorch_model.bin")
    with pytest.raises(UserError, match="cannot be loaded"):
        loading.load_model(str(tmp_path), torch.float32)


def test_a_generation_config_with_a_temperature_alone_can_be_saved(checkpoint, tmp_path_factory):
    settings = json.loads((checkpoint / "generation_config.json").read_text()) | {"temperature": 0.6, "top_p": 0.9}
    (checkpoint / "generation_config.json").write_text(json.dumps(settings))
    model, tokenizer = loading.load_model(str(checkpoint), torch.float32)
    folder = tmp_path_factory.mktemp("saved")
    loading.save_model(model, tokenizer, folder)
    saved = json.loads((folder / "generation_config.json").read_text())
    assert (saved["temperature"], saved["top_p"], saved["do_sample"]) == (0.6, 0.9, True)
