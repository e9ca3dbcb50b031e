"""A training that ends well or with a message, and what it leaves."""

import json
import math

import pandas as pd
import pytest
import tiny
import torch
from forks import stage
from repositories import copy_repository, edit_params
from training_samples import VOCAB_SIZE, fit_config, max_difference, training_samples

from distill.core.errors import UserError
from distill.modeling import loading
from distill.training.data import TrainingData
from distill.training.fit import fit


def test_the_result_counts_steps_epochs_and_tokens(tmp_path):
    data = training_samples(10)
    result = fit(tiny.model(VOCAB_SIZE, layers=1), TrainingData(data), fit_config(tmp_path, num_train_epochs=3))
    assert (result.steps, result.epochs) == (4, 3)  # 30 samples in batches of 8
    assert result.response_tokens == 3 * sum(len(sample.response) for sample in data)
    losses = [entry["loss"] for entry in result.log if "loss" in entry]
    assert len(losses) == 4
    assert all(map(math.isfinite, losses))


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_loss_that_is_not_finite_stops_with_its_step(tmp_path, value):
    model, calls = tiny.model(VOCAB_SIZE, layers=1), []

    def spoil(module, given, output):
        calls.append(output)
        return output + (value if len(calls) == 3 else 0)

    model.get_output_embeddings().register_forward_hook(spoil)
    with pytest.raises(UserError, match=r"the loss must be finite, got .* at step 3 of 5") as stopped:
        fit(model, TrainingData(training_samples()), fit_config(tmp_path, num_train_epochs=5))
    assert "Lower learning_rate (0.01)" in str(stopped.value)
    assert all(weight.isfinite().all() for weight in model.parameters())


def test_a_gradient_that_is_not_finite_stops_before_its_step(tmp_path):
    model = tiny.model(VOCAB_SIZE, layers=1)
    model.model.norm.weight.register_hook(lambda gradient: gradient * math.inf)
    before = {name: weight.detach().clone() for name, weight in model.named_parameters()}
    with pytest.raises(UserError, match=r"norm of the gradient must be finite, got .* at step 1 of 1"):
        fit(model, TrainingData(training_samples()), fit_config(tmp_path))
    assert all(torch.equal(weight, before[name]) for name, weight in model.named_parameters())


def test_a_model_with_weights_that_are_not_finite_is_not_saved(tmp_path):
    model = tiny.model(VOCAB_SIZE, layers=1)
    with torch.no_grad():
        model.model.norm.weight[3] = math.nan
    with pytest.raises(UserError, match=r"must have finite weights .* in 1 tensors \(model\.norm\.weight\)"):
        loading.save_model(model, tiny.tokenizer(), tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_learning_rate_of_a_million_keeps_the_old_student(finished, tmp_path):
    folder = copy_repository(finished, tmp_path / "repository")
    edit_params(folder, {"train.optimization.learning_rate": 1e6})
    files = [*folder.glob("models/sft-7/*"), *folder.glob("metrics/train/sft-7*")]
    before = {path: path.read_bytes() for path in files}
    assert len(before) > 5
    done = stage(folder, "train sft 7", check=False)
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert "train.optimization.learning_rate" in done.stderr
    assert {path: path.read_bytes() for path in files} == before


def test_a_changed_initial_student_is_not_trained(finished, tmp_path):
    folder = copy_repository(finished, tmp_path / "repository")
    weights = folder / "models/init/model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    done = stage(folder, "train sft 7", check=False)
    assert done.returncode == 1
    assert "models/init is not the model that metrics/init.json describes" in done.stderr
    assert json.loads((folder / "metrics/init.json").read_text())["weights"]


@pytest.mark.parametrize("variant", ["sft", "distilled"])
def test_every_training_starts_from_the_initial_student(finished, variant):
    initial = json.loads((finished / "metrics/init.json").read_text())
    log = pd.read_csv(finished / f"metrics/train/{variant}-7_log.csv")
    first = log.iloc[0]
    assert (first["step"], first["phase"], first["loss"]) == (0, "untrained", initial["validation_loss"])
    start, _ = loading.load_model(str(finished / "models/init"), torch.float32)
    end, _ = loading.load_model(str(finished / f"models/{variant}-7"), torch.float32)
    moved = max_difference(dict(start.named_parameters()), dict(end.named_parameters()))
    steps = log["step"].max()
    assert 0 < moved <= 2 * steps * 1e-3, "a step of AdamW moves a weight by about the learning rate"
