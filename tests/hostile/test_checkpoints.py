"""Checkpoints with flipped bits, cut off or without some of their files: never resumed from, never another student."""

import random
import shutil
from pathlib import Path

import pytest
import tiny
import torch
from training_samples import VOCAB_SIZE, fit_config, max_difference, training_samples
from transformers import TrainerCallback

from distill.training import checkpoints
from distill.training.data import TrainingData
from distill.training.fit import fit

EPOCHS, SAVED = 6, (2, 4)  # steps in all, those with a checkpoint when it is stopped
FLIPS = 300


class Stop(TrainerCallback):
    """Ends the process's training after the second checkpoint, as a kill would."""

    def on_step_end(self, args, state, control, **kwargs) -> None:
        if state.global_step == SAVED[-1] + 1:
            raise KeyboardInterrupt


def train(folder: Path, *callbacks: TrainerCallback) -> dict[str, torch.Tensor]:
    """The weights after a training, resumed from the checkpoints of the folder."""
    model = tiny.model(VOCAB_SIZE, layers=1)
    config = fit_config(folder, num_train_epochs=EPOCHS, save_steps=2, learning_rate=1e-3)
    fit(model, TrainingData(training_samples()), config, callbacks)
    return {name: weight.detach() for name, weight in model.named_parameters()}


@pytest.fixture(scope="module")
def stopped(tmp_path_factory) -> Path:
    """The folder of a training that was stopped after its second checkpoint. Not to be changed."""
    folder = tmp_path_factory.mktemp("stopped")
    with pytest.raises(KeyboardInterrupt):
        train(folder, Stop())
    assert {path.name for path in (folder / "checkpoints").iterdir()} == {f"checkpoint-{step}" for step in SAVED}
    return folder


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> dict[str, torch.Tensor]:
    """The weights of a training that nothing stopped."""
    return train(tmp_path_factory.mktemp("whole"))


def newest(folder: Path) -> Path:
    """The newest checkpoint of a training's folder."""
    return folder / f"checkpoints/checkpoint-{SAVED[-1]}"


def flip(path: Path, draws: random.Random) -> None:
    """Flips one bit of a file."""
    content = bytearray(path.read_bytes())
    content[draws.randrange(len(content))] ^= 1 << draws.randrange(8)
    path.write_bytes(content)


def test_every_flipped_bit_is_noticed(stopped, tmp_path):
    folder, draws = shutil.copytree(newest(stopped), tmp_path / "checkpoint-4"), random.Random(0)
    files = sorted(path for path in folder.iterdir() if path.stat().st_size)
    assert {"model.safetensors", "optimizer.pt", "rng_state.pth", "scheduler.pt"} < {path.name for path in files}
    for number in range(FLIPS):
        path = files[number % len(files)]
        content = path.read_bytes()
        flip(path, draws)
        assert checkpoints.damage(folder), path.name
        path.write_bytes(content)
    assert checkpoints.damage(folder) is None


def test_cut_missing_and_added_files_are_noticed(stopped, tmp_path):
    folder = shutil.copytree(newest(stopped), tmp_path / "checkpoint-4")
    for path in sorted(folder.iterdir()):
        content = path.read_bytes()
        for length in range(0, len(content), max(len(content) // 20, 1)):
            path.write_bytes(content[:length])
            assert checkpoints.damage(folder), path.name
        path.write_bytes(content + b"\0")
        assert checkpoints.damage(folder), path.name
        path.unlink()
        assert checkpoints.damage(folder), path.name
        path.mkdir()
        assert checkpoints.damage(folder), path.name
        path.rmdir()
        path.write_bytes(content)
    (folder / "pytorch_model.bin").touch()
    assert checkpoints.damage(folder) == "is damaged (pytorch_model.bin changed)"


@pytest.mark.parametrize("content", ["", "[]", "null", "{}", "[" * 100_000, '{"model.safetensors": 1}', "\x00"])
def test_a_seal_of_other_contents_is_noticed(stopped, tmp_path, content):
    folder = shutil.copytree(newest(stopped), tmp_path / "checkpoint-4")
    (folder / checkpoints.COMPLETE).write_text(content)
    assert checkpoints.damage(folder)


@pytest.mark.parametrize(
    ("damaged", "change", "resumed"),
    [
        ({}, "none", "resuming from checkpoint-4"),
        ({4: "model.safetensors"}, "flip", "resuming from checkpoint-2"),
        ({4: "optimizer.pt"}, "flip", "resuming from checkpoint-2"),
        ({4: "optimizer.pt"}, "remove", "resuming from checkpoint-2"),
        ({4: "trainer_state.json", 2: "rng_state.pth"}, "cut", None),
    ],
)
def test_a_resumed_training_gives_the_same_student(stopped, whole, tmp_path, capsys, damaged, change, resumed):
    folder = shutil.copytree(stopped, tmp_path / "run")
    for step, name in damaged.items():
        path = folder / f"checkpoints/checkpoint-{step}" / name
        if change == "flip":
            flip(path, random.Random(0))
        elif change == "cut":
            path.write_bytes(path.read_bytes()[:-1])
        else:
            path.unlink()
    assert max_difference(train(folder), whole) == 0.0
    printed = capsys.readouterr().out
    assert all(f"checkpoint-{step} is damaged ({name} changed): removed" in printed for step, name in damaged.items())
    assert resumed is None or resumed in printed
    assert ("resuming" in printed) == (resumed is not None)
