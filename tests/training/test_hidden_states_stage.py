"""The hidden loss by the real commands on the tiny experiment."""

import json

import pandas as pd
import pytest
from forks import stage
from repositories import copy_repository, edit_params, retarget, stage_command, stop_command
from safetensors import safe_open

from distill.targets import store

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("layers")]


def with_hidden_loss(folder, layers, **changes):
    """The same experiment with a hidden loss; `changes` are of that section."""
    hidden_loss = {
        "layer_pairs": [[1, 0], [3, 1]],
        "distance": "cosine",
        "projection": True,
        "weight": 1.0,
        "hint_fraction": 0.5,
    }
    edit_params(folder, {"targets.layers": layers, "train.distilled.hidden_loss": hidden_loss | changes})
    return folder


def weights(folder) -> bytes:
    return (folder / "models/distilled-7/model.safetensors").read_bytes()


def names(path) -> set[str]:
    with safe_open(path, "pt") as file:
        return set(file.keys())


@pytest.fixture(scope="module")
def stored(finished, tmp_path_factory):
    """The tiny experiment with the states of layers 1 and 3 stored."""
    folder = with_hidden_loss(copy_repository(finished, tmp_path_factory.mktemp("layers") / "repository"), [1, 3])
    stage(folder, "targets")
    return folder


def test_states_are_stored_next_to_unchanged_targets(finished, stored):
    targets = stored / "data/targets"
    for path in (finished / "data/targets").iterdir():
        assert (targets / path.name).read_bytes() == path.read_bytes()
    manifest = json.loads((targets / store.LAYERS / store.MANIFEST).read_text())
    assert manifest["source"]["kind"] == "layers 1, 3"
    tokens = sum(length for _, _, length in manifest["samples"].values())
    with safe_open(targets / store.LAYERS / "00000.safetensors", "pt") as shard:
        assert shard.get_slice("states").get_shape() == [tokens, 2, 32]


def test_training_killed_during_hints_resumes_to_the_same_bytes(finished, stored, tmp_path):
    folder = copy_repository(stored, tmp_path / "repository")
    stage(folder, "train distilled 7")
    before = weights(folder)
    steps = json.loads((folder / "metrics/train/distilled-7.json").read_text())["steps"]
    assert 2 < round(0.5 * steps) < steps - 2, "the checkpoint is not among the hints"
    assert before != weights(finished)
    assert names(folder / "models/distilled-7/model.safetensors") == names(
        finished / "models/distilled-7/model.safetensors"
    )
    stop_command(folder, stage_command("train distilled 7"))
    (checkpoint, *_) = sorted(folder.glob(".distill/checkpoints/*/*/checkpoint-*/complete"))
    kept = names(checkpoint.parent / "model.safetensors")
    assert {f"layer_projections.{pair}.weight" for pair in (0, 1)} <= kept
    assert "resuming from" in stage(folder, "train distilled 7").stdout
    assert weights(folder) == before


def test_hidden_loss_without_projection_and_with_online_targets(finished, tmp_path):
    folder = copy_repository(finished, tmp_path / "repository")
    with_hidden_loss(folder, [0, 1, 3], projection=False, distance="mse")
    edit_params(folder, {"train.optimization.num_train_epochs": 16})
    retarget(folder, "forward_kl", kind="online", layers=[0, 1, 3])
    stage(folder, "train distilled 7")
    log = pd.read_csv(folder / "metrics/train/distilled-7_log.csv").query("split == 'train'")
    first, second, third, _ = log.groupby(log.epoch.sub(1e-3).floordiv(4)).loss.mean()
    assert second < 0.9 * first, "the layers have learnt nothing"
    assert third > second + 0.2, "the divergence did not join"


def test_hidden_loss_goes_with_cross_entropy(stored, tmp_path):
    folder = copy_repository(stored, tmp_path / "repository")
    edit_params(folder, {"train.distilled.loss": {"kind": "cross_entropy"}})
    edit_params(folder, {"train.distilled.hidden_loss.hint_fraction": 0.0})
    stage(folder, "train distilled 7")
    assert weights(folder) != (folder / "models/sft-7/model.safetensors").read_bytes()


@pytest.mark.parametrize(
    ("layers", "changes", "name", "words"),
    [
        ([1, 4], {"layer_pairs": [[1, 0]]}, "targets", "targets.layers: the teacher's layers are 0 to 3, got [1, 4]"),
        ([1, 3], {"layer_pairs": [[1, 0], [3, 2]]}, "train distilled 7", "the student's layers are 0 to 1, got [0, 2]"),
        ([1], {}, "train distilled 7", "layers [3] of the teacher are not stored; targets.layers must list them"),
        ([0, 1, 3], {}, "train distilled 7", "kind: layers 1, 3 (expected layers 0, 1, 3)"),
    ],
)
def test_missing_layers_are_refused_in_one_message(stored, tmp_path, layers, changes, name, words):
    folder = with_hidden_loss(copy_repository(stored, tmp_path / "repository"), layers, **changes)
    done = stage(folder, name, check=False)
    assert done.returncode == 1
    assert words in done.stderr
    assert "Traceback" not in done.stderr
