"""Layers of the teacher teach the student's, by the real commands on the tiny experiment."""

import json

import pandas as pd
import pytest
import yaml
from forks import stage
from repositories import copy_repository, stage_command, stop_command
from safetensors import safe_open

from distill.targets import store

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("layers")]


def teaching(folder, layers, targets_kind=None, **changes):
    """The same experiment whose layers teach, as far as its training; `changes` are of train.distilled."""
    path = folder / "params.yaml"
    value = yaml.safe_load(path.read_text())
    value["weight"]["layers"] = layers
    if targets_kind is not None:
        value["weight"]["targets"] = {"teacher": "tiny", "batch_tokens": 256, "kind": targets_kind}
    pairs = {"pairs": [[1, 0], [3, 1]], "loss": "cosine", "projection": True, "weight": 1.0, "alone": 0.5}
    value["train"]["distilled"] |= {"layer_loss": pairs | changes}
    path.write_text(yaml.safe_dump(value, sort_keys=False))
    return folder


def weights(folder) -> bytes:
    return (folder / "models/distilled-7/model.safetensors").read_bytes()


def names(path) -> set[str]:
    with safe_open(path, "pt") as file:
        return set(file.keys())


@pytest.fixture(scope="module")
def stored(finished, tmp_path_factory):
    """The tiny experiment with the states of layers 1 and 3 stored."""
    folder = teaching(copy_repository(finished, tmp_path_factory.mktemp("layers") / "repository"), [1, 3])
    stage(folder, "weight")
    return folder


def test_states_are_stored_beside_targets_that_stay_the_same(finished, stored):
    place = stored / "data/weighted/targets"
    for path in (finished / "data/weighted/targets").iterdir():
        assert (place / path.name).read_bytes() == path.read_bytes()
    manifest = json.loads((place / store.LAYERS / store.MANIFEST).read_text())
    assert manifest["source"]["kind"] == "layers 1, 3"
    tokens = sum(length for _, _, length in manifest["samples"].values())
    with safe_open(place / store.LAYERS / "00000.safetensors", "pt") as shard:
        assert shard.get_slice("states").get_shape() == [tokens, 2, 32]


def test_a_training_killed_while_layers_alone_learn_goes_on_to_the_same_bytes_with_its_projections(
    finished, stored, tmp_path
):
    folder = copy_repository(stored, tmp_path / "repository")
    stage(folder, "train distilled 7")
    before = weights(folder)
    steps = json.loads((folder / "metrics/train/distilled-7.json").read_text())["steps"]
    assert 2 < round(0.5 * steps) < steps - 2, "the checkpoint that is waited for is not in the first part"
    assert before != weights(finished)
    assert names(folder / "models/distilled-7/model.safetensors") == names(
        finished / "models/distilled-7/model.safetensors"
    )
    stop_command(folder, stage_command("train distilled 7"))
    (checkpoint, *_) = sorted(folder.glob(".distill/checkpoints/*/*/checkpoint-*/complete"))
    kept = names(checkpoint.parent / "model.safetensors")
    assert {f"layer_projections.{place}.weight" for place in (0, 1)} <= kept
    assert "resuming from" in stage(folder, "train distilled 7").stdout
    assert weights(folder) == before


def test_without_projection_and_beside_a_teacher_that_is_asked_in_each_step(finished, tmp_path):
    folder = teaching(
        copy_repository(finished, tmp_path / "repository"), [0, 1, 3], "online", projection=False, loss="mse"
    )
    path = folder / "params.yaml"
    path.write_text(path.read_text().replace("epochs: 2", "epochs: 16"))
    stage(folder, "weight")
    stage(folder, "train distilled 7")
    log = pd.read_csv(folder / "metrics/train/distilled-7_log.csv").query("split == 'train'")
    first, second, third, _ = log.groupby(log.epoch.sub(1e-3).floordiv(4)).loss.mean()
    assert second < 0.9 * first, "the layers have learnt nothing"
    assert third > second + 0.2, "the divergence did not join"


def test_layers_teach_beside_cross_entropy(stored, tmp_path):
    folder = copy_repository(stored, tmp_path / "repository")
    path = folder / "params.yaml"
    value = yaml.safe_load(path.read_text())
    value["train"]["distilled"] |= {"loss": "cross_entropy"}
    value["train"]["distilled"]["layer_loss"] |= {"alone": 0.0}
    path.write_text(yaml.safe_dump(value, sort_keys=False))
    stage(folder, "train distilled 7")
    assert weights(folder) != (folder / "models/sft-7/model.safetensors").read_bytes()


@pytest.mark.parametrize(
    ("layers", "changes", "name", "words"),
    [
        ([1, 4], {"pairs": [[1, 0]]}, "weight", "weight.layers: the teacher's layers are 0 to 3, given [1, 4]"),
        ([1, 3], {"pairs": [[1, 0], [3, 2]]}, "train distilled 7", "the student's layers are 0 to 1, given [0, 2]"),
        ([1], {}, "train distilled 7", "layers [3] of the teacher are not stored; weight.layers must list them"),
        ([0, 1, 3], {}, "train distilled 7", "kind: layers 1, 3 (expected layers 0, 1, 3)"),
    ],
)
def test_layers_that_are_not_there_are_refused_in_one_message(stored, tmp_path, layers, changes, name, words):
    folder = teaching(copy_repository(stored, tmp_path / "repository"), layers, **changes)
    done = stage(folder, name, check=False)
    assert done.returncode == 1
    assert words in done.stderr
    assert "Traceback" not in done.stderr
