"""Phases: their plan, what params may ask for, and real runs of them, killed and resumed."""

import hashlib
import json
import re
from pathlib import Path

import pandas as pd
import pytest
import tiny
import yaml
from forks import stage
from repositories import copy_repository, stage_command, stop_command
from transformers import AutoModelForCausalLM

from distill.reporting.figures.loss import draw_loss

STUDENT = {"layers": 3, "intermediate_size": None, "num_key_value_heads": None, "num_train_epochs": 1}
PROGRESSIVE = {"teacher": "previous", "students": [STUDENT]}
GENERATIONS = {"num_generations": 3, "start": "previous", "ema_decay": None}


def changed(folder: Path, **changes: object) -> Path:
    """The experiment with other values in section `train`."""
    path = folder / "params.yaml"
    value = yaml.safe_load(path.read_text())
    value["train"] |= changes
    path.write_text(yaml.safe_dump(value, sort_keys=False))
    return folder


def written(folder: Path, run: str) -> dict[str, str]:
    """The hash of each file that the training of a run wrote."""
    roots = [folder / "models" / run, folder / "metrics/live" / run, *(folder / "metrics/train").glob(f"{run}*")]
    paths = [path for root in roots for path in [root, *root.rglob("*")] if path.is_file()]
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in paths}


def record(folder: Path, run: str) -> dict:
    return json.loads((folder / ("metrics/init.json" if run == "init" else f"metrics/train/{run}.json")).read_text())


def log(folder: Path, run: str) -> pd.DataFrame:
    return pd.read_csv(folder / f"metrics/train/{run}_log.csv")


@pytest.mark.slow
def test_intermediate_students_are_trained_and_kept(finished, tmp_path):
    folder = changed(copy_repository(finished, tmp_path / "repository"), progressive=PROGRESSIVE)
    for name in ("init", "train sft 7", "train distilled 7"):
        stage(folder, name)
    trained = record(folder, "distilled-7")
    assert list(trained["phases"]) == ["intermediate-1", "student"]
    assert [phase["layers"] for phase in trained["phases"].values()] == [[0, 2, 3], [0, 3]]
    assert trained["layers"] == record(folder, "init")["layers"] == [0, 3]
    sizes = [tiny.teacher().num_parameters(), *(phase["parameters"] for phase in trained["phases"].values())]
    assert sizes == sorted(sizes, reverse=True)
    assert trained["parameters"] == sizes[2] < sizes[1]
    intermediate = AutoModelForCausalLM.from_pretrained(folder / "models/distilled-7/intermediate-1")
    assert intermediate.config.num_hidden_layers == 3
    assert intermediate.num_parameters() == sizes[1]
    losses = [phase["validation_loss"] for phase in trained["phases"].values()]
    assert trained["validation_loss"] == losses[1]
    # what is pruned from the trained intermediate student starts better than the untrained student of the same layers
    assert trained["phases"]["student"]["first_validation_loss"] != record(folder, "init")["validation_loss"]
    control = record(folder, "sft-7")
    assert [control[name] for name in ("steps", "epochs", "response_tokens")] == [
        trained[name] for name in ("steps", "epochs", "response_tokens")
    ]
    assert trained["epochs"] == 3
    table = log(folder, "distilled-7")
    assert table.phase.unique().tolist() == ["untrained", "intermediate-1", "student"]
    assert table.epoch.max() == 3
    # a validation is at the step that is nearest to the end of its epoch: the student's second may end between two
    validations = table[table.split == "validation"]
    own = trained["steps"] - validations.step.iloc[1]
    assert validations.epoch.tolist() == pytest.approx([0, 1, 1 + round(own / 2) / (own / 2), 3], abs=1e-3)


@pytest.mark.slow
def test_the_previous_student_is_another_teacher(finished, tmp_path):
    trained = {}
    for teacher in ("previous", "original"):
        folder = changed(copy_repository(finished, tmp_path / teacher), progressive=PROGRESSIVE | {"teacher": teacher})
        for name in ("init", "train distilled 7"):
            stage(folder, name)
        trained[teacher] = written(folder, "distilled-7")
    first, second = trained.values()
    assert (
        first["models/distilled-7/intermediate-1/model.safetensors"]
        == second["models/distilled-7/intermediate-1/model.safetensors"]
    )
    assert first["models/distilled-7/model.safetensors"] != second["models/distilled-7/model.safetensors"]


@pytest.mark.slow
def test_the_best_generation_is_kept(finished, tmp_path):
    folder = changed(copy_repository(finished, tmp_path / "repository"), self_distillation=GENERATIONS)
    stage(folder, "train distilled 7")
    trained, table = record(folder, "distilled-7"), log(folder, "distilled-7")
    losses = {name: phase["validation_loss"] for name, phase in trained["phases"].items()}
    assert list(losses) == ["generation-1", "generation-2", "generation-3"]
    assert trained["kept"] == min(losses, key=losses.get)
    assert trained["validation_loss"] == min(losses.values())
    ends = table[table.split == "validation"].groupby("phase").loss.last()
    assert ends[trained["kept"]] == trained["validation_loss"]
    steps = table[table.split == "train"].groupby("phase").loss.first()
    assert steps["generation-1"] > 0.1
    assert abs(steps["generation-2"]) < 1e-3, "a student differs from itself before its first step"
    curves = (folder / "metrics/live/distilled-7/plots/metrics/validation/loss.tsv").read_text().splitlines()[1:]
    assert [float(line.split()[1]) for line in curves] == pytest.approx(
        table[table.split == "validation"].loss.tolist(), abs=1e-3
    )
    axes = draw_loss(table.assign(variant="distilled"), "token").axes[0]
    assert [text.get_text() for text in axes.texts if text.get_text().startswith("generation")] == list(losses)
    assert [len(line.get_xdata()) for line in axes.lines[:3]] == [2, 2, 2]


@pytest.mark.slow
def test_a_best_first_generation_is_kept(finished, tmp_path):
    generations = GENERATIONS | {"num_generations": 2, "start": "initial"}
    folder = changed(copy_repository(finished, tmp_path / "repository"), self_distillation=generations)
    stage(folder, "train distilled 7")
    trained, model = record(folder, "distilled-7"), "models/distilled-7/model.safetensors"
    first, second = (phase["validation_loss"] for phase in trained["phases"].values())
    assert first < second, "the last is the best, so that this proves nothing"
    assert (trained["kept"], trained["validation_loss"]) == ("generation-1", first)
    assert (folder / model).read_bytes() == (finished / model).read_bytes(), (
        "its first generation is what it is without"
    )


@pytest.mark.slow
def test_a_run_killed_in_each_phase_ends_with_the_same_bytes(finished, tmp_path):
    generations = GENERATIONS | {"num_generations": 2, "start": "initial", "ema_decay": 0.8}
    folder = changed(
        copy_repository(finished, tmp_path / "repository"), progressive=PROGRESSIVE, self_distillation=generations
    )
    for name in ("init", "train distilled 7"):
        stage(folder, name)
    whole = written(folder, "distilled-7")
    assert len(whole) > 10
    for name in ("intermediate-1", "generation-1", "generation-2"):
        stop_command(folder, stage_command("train distilled 7"), at=f"{name}/checkpoint-4/complete")
        assert list((folder / ".distill").glob(f"checkpoints/*/{name}")), f"{name} was not interrupted"
    output = stage(folder, "train distilled 7").stdout
    assert "intermediate-1 is finished" in output
    assert written(folder, "distilled-7") == whole
    assert not list((folder / ".distill").glob("checkpoints/*"))
    changed(folder, self_distillation=generations | {"ema_decay": None})
    stage(folder, "train distilled 7")
    assert written(folder, "distilled-7") != whole, "the average has taught nothing"


@pytest.mark.parametrize(
    ("students", "words"),
    [
        (
            [STUDENT | {"layers": 5}],
            "train.progressive.students, intermediate-1.layers: must be at most 4, the teacher's, got 5",
        ),
        (
            [STUDENT | {"layers": 4}, STUDENT | {"layers": 4}],
            "intermediate-2 has .* parameters and the model that it is pruned from",
        ),
    ],
)
def test_intermediate_students_must_be_smaller(finished, tmp_path, students, words):
    folder = changed(
        copy_repository(finished, tmp_path / "repository"), progressive=PROGRESSIVE | {"students": students}
    )
    done = stage(folder, "init", check=False)
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert re.search(words, done.stderr), done.stderr
