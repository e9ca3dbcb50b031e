"""The record, the loss table and the folder of a finished run."""

import math
from dataclasses import replace

import pytest
import tiny
import torch
from safetensors.torch import load_file
from training_samples import fit_config

from distill.core.errors import UserError
from distill.modeling import loading
from distill.students.build import Student
from distill.training import outcome
from distill.training.phases import PhaseResult, Trained, phase_folder
from distill.training.validation import Validation

TOKENIZER = tiny.tokenizer()
ROWS = [tiny.weighted("ants", "What is honey?", 1.0) | {"logprobs": None, "usage": None}]


def phase(name: str, first: float, last: float, steps: int) -> PhaseResult:
    """A phase of two epochs that logged its loss at each end."""
    log = [
        {"step": steps // 2, "epoch": 0.5, "loss": 2.00004, "grad_norm": 1.0},
        {"step": steps, "epoch": 1.0, "loss": 1.0},
        {"step": steps, "epoch": 1.0, "validation_loss": last},
    ]
    counts = {"steps": steps, "epochs": 2, "response_tokens": 10 * steps}
    return PhaseResult(name, 1000, [0, 3], first, log, counts)


def trained(*phases: PhaseResult) -> Trained:
    """A run of these phases, the last of them its best."""
    return Trained(tiny.model(len(TOKENIZER), layers=1), list(phases), phases[-1])


STUDENT = Student(tiny.model(len(TOKENIZER), layers=1), TOKENIZER, {"source": "tiny", "layers": [0, 1, 2]})


def validation() -> Validation:
    return Validation.of(ROWS, TOKENIZER, None, torch.float32)


def test_the_record_of_one_phase_has_its_counts_and_loss(tmp_path):
    run = trained(phase("student", 3.0, 1.23456, 8))
    record = outcome.make_record(STUDENT, run, fit_config(tmp_path), validation())
    assert record == {
        "source": "tiny", "layers": [0, 3], "loss": "forward_kl", "steps": 8, "epochs": 2, "response_tokens": 80,
        "parameters": loading.parameter_count(run.model), "validation_loss": 1.2346,
        "validation_unit": "student token",
    }  # fmt: skip


def test_the_record_of_several_phases_names_the_kept_one(tmp_path):
    run = trained(phase("intermediate-1", 3.0, 2.0, 4), phase("student", 2.5, 1.5, 8))
    record = outcome.make_record(STUDENT, run, fit_config(tmp_path), validation())
    assert (record["steps"], record["epochs"], record["response_tokens"]) == (12, 4, 120)
    assert record["kept"] == "student"
    losses = {name: (one["first_validation_loss"], one["validation_loss"]) for name, one in record["phases"].items()}
    assert losses == {"intermediate-1": (3.0, 2.0), "student": (2.5, 1.5)}


def test_the_loss_table_counts_steps_and_epochs_through():
    table = outcome.loss_table(trained(phase("intermediate-1", 3.0, 2.0, 4), phase("student", 2.5, 1.5, 8)))
    assert table.to_numpy().tolist() == [
        [0, 0.0, "validation", 3.0, "untrained"],
        [2, 1.0, "train", 2.0, "intermediate-1"],
        [4, 2.0, "train", 1.0, "intermediate-1"],
        [4, 2.0, "validation", 2.0, "intermediate-1"],
        [8, 3.0, "train", 2.0, "student"],
        [12, 4.0, "train", 1.0, "student"],
        [12, 4.0, "validation", 1.5, "student"],
    ]


def test_students_are_saved_in_the_dtype_of_params(tmp_path):
    run = trained(phase("intermediate-1", 3.0, 2.0, 4), phase("student", 2.5, 1.5, 8))
    checkpoints, target = tmp_path / "checkpoints", tmp_path / "model"
    loading.save_model(tiny.model(len(TOKENIZER), layers=3), TOKENIZER, phase_folder(checkpoints, "intermediate-1"))
    expected = run.model.model.norm.weight.detach().bfloat16()
    target.mkdir()
    outcome.save_students(target, STUDENT, run, checkpoints, torch.bfloat16)
    saved = load_file(target / "model.safetensors")
    assert {weight.dtype for weight in saved.values()} == {torch.bfloat16}
    assert torch.equal(saved["model.norm.weight"], expected)
    between, _ = loading.load_model(str(target / "intermediate-1"), torch.float32)
    assert between.config.num_hidden_layers == 3


def test_a_student_that_is_not_finite_is_not_saved(tmp_path):
    run = trained(phase("student", 3.0, 2.0, 4))
    with torch.no_grad():
        run.model.model.norm.weight[0] = math.inf
    with pytest.raises(UserError, match="must have finite weights"):
        outcome.save_students(tmp_path, STUDENT, replace(run), tmp_path, torch.float32)
    assert not list(tmp_path.iterdir())
