"""Every way in which the teacher can give its distributions, by the real commands on the tiny experiment."""

import json

import pytest
from forks import stage
from repositories import copy_repository, retarget, stage_command, stop_command

pytestmark = pytest.mark.slow


def weights(folder) -> bytes:
    return (folder / "models/distilled-7/model.safetensors").read_bytes()


def test_stored_states_train_the_student_that_asking_the_teacher_in_each_step_trains(finished, tmp_path):
    losses, stored = {}, {}
    for kind in ("hidden", "online"):
        folder = copy_repository(finished, tmp_path / kind)
        retarget(folder, "jsd", kind=kind)
        stage(folder, "train distilled 7")
        losses[kind] = json.loads((folder / "metrics/train/distilled-7.json").read_text())["validation_loss"]
        stored[kind] = sorted(path.name for path in (folder / "data/weighted/targets").glob("0*"))
    assert losses["hidden"] == pytest.approx(losses["online"], abs=1e-3)
    assert stored == {"hidden": ["00000.safetensors"], "online": []}
    untrained = json.loads((finished / "metrics/train/init.json").read_text())["validation_loss"]
    assert losses["online"] < untrained - 0.1


def test_draws_take_less_room_than_the_best_and_train_a_student(finished, tmp_path):
    folder = copy_repository(finished, tmp_path / "repository")
    place = folder / "data/weighted/targets/00000.safetensors"
    best = place.stat().st_size
    retarget(folder, "forward_kl", kind="sampled", draws=50)
    assert place.stat().st_size < best / 2
    before = weights(folder)
    stage(folder, "train distilled 7")
    assert weights(folder) != before


def test_a_student_that_learns_from_its_own_answers_goes_on_after_a_kill_to_the_same_bytes(finished, tmp_path):
    folder = copy_repository(finished, tmp_path / "repository")
    retarget(folder, "reverse_kl", kind="on_policy", student_fraction=0.7, max_tokens=8, sampling_temperature=1.0)
    stage(folder, "train distilled 7")
    before = weights(folder)
    stop_command(folder, stage_command("train distilled 7"))
    assert "resuming from" in stage(folder, "train distilled 7").stdout
    assert weights(folder) == before
    retarget(folder, "reverse_kl", kind="on_policy", student_fraction=0.0, max_tokens=8, sampling_temperature=1.0)
    stage(folder, "train distilled 7")
    assert weights(folder) != before, "no batch was the student's"
