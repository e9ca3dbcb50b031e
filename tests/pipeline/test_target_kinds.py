"""Each kind of targets, by the real commands on the tiny experiment."""

import json

import pytest
from forks import stage
from repositories import copy_repository, retarget, stage_command, stop_command

pytestmark = pytest.mark.slow


def weights(folder) -> bytes:
    return (folder / "models/distilled-7/model.safetensors").read_bytes()


def test_stored_states_train_the_student_of_online_targets(finished, tmp_path):
    losses, stored = {}, {}
    for kind in ("hidden_states", "online"):
        folder = copy_repository(finished, tmp_path / kind)
        retarget(folder, "jsd", kind=kind)
        stage(folder, "train distilled 7")
        losses[kind] = json.loads((folder / "metrics/train/distilled-7.json").read_text())["validation_loss"]
        stored[kind] = sorted(path.name for path in (folder / "data/targets").glob("0*"))
    assert losses["hidden_states"] == pytest.approx(losses["online"], abs=1e-3)
    assert stored == {"hidden_states": ["00000.safetensors"], "online": []}
    untrained = json.loads((finished / "metrics/init.json").read_text())["validation_loss"]
    assert losses["online"] < untrained - 0.1


def test_draws_are_smaller_than_top_k_and_train_a_student(finished, tmp_path):
    folder = copy_repository(finished, tmp_path / "repository")
    shard = folder / "data/targets/00000.safetensors"
    top_k = shard.stat().st_size
    retarget(folder, "forward_kl", kind="sampled", num_draws=50)
    assert shard.stat().st_size < top_k / 2
    before = weights(folder)
    stage(folder, "train distilled 7")
    assert weights(folder) != before


def test_on_policy_training_resumes_to_the_same_bytes(finished, tmp_path):
    folder = copy_repository(finished, tmp_path / "repository")
    targets = {"kind": "on_policy", "max_new_tokens": 8, "sampling_temperature": 1.0}
    retarget(folder, "reverse_kl", **targets, on_policy_fraction=0.7)
    stage(folder, "train distilled 7")
    before = weights(folder)
    stop_command(folder, stage_command("train distilled 7"))
    assert "resuming from" in stage(folder, "train distilled 7").stdout
    assert weights(folder) == before
    retarget(folder, "reverse_kl", **targets, on_policy_fraction=0.0)
    stage(folder, "train distilled 7")
    assert weights(folder) != before, "no batch was the student's"
