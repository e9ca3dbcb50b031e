"""Ladders and rounds: their plan, what params may ask for, and real trainings of them, killed and resumed."""

import hashlib
import json
import re
from pathlib import Path
from types import SimpleNamespace

import pandas as pd
import pytest
import tiny
import torch
import yaml
from forks import stage
from repositories import copy_repository, stage_command, stop_command
from transformers import AutoModelForCausalLM

from distill.core.errors import UserError
from distill.params import loading, schema
from distill.reporting.figures.loss import draw_loss
from distill.training import phases
from distill.training.ema import Average

RUNG = {"layers": 3, "neurons": None, "kv_heads": None, "epochs": 1}
LADDER = {"teacher": "above", "rungs": [RUNG]}
PRETRAINED = {"source": "pretrained", "model": "m", "revision": None, "adapter": None}
ROUNDS = {"number": 3, "start": "last", "average_decay": None}


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
    return json.loads((folder / f"metrics/train/{run}.json").read_text())


def log(folder: Path, run: str) -> pd.DataFrame:
    return pd.read_csv(folder / f"metrics/train/{run}_log.csv")


def sections(**changes: object) -> schema.Params:
    return loading.check(tiny.params(**changes))


def test_a_rung_keeps_layers_in_the_numbering_of_the_one_above():
    rungs = [RUNG | {"layers": [0, 1, 2, 3]}, RUNG | {"layers": [0, 1, 3]}]
    train = sections(
        train__student__layers=[0, 3], train__student__layer_choice="listed", train__ladder=LADDER | {"rungs": rungs}
    ).train
    assert [choice.layers for choice in phases.cuts(train.student, train.ladder)] == [[0, 1, 2, 3], [0, 1, 3], [0, 2]]
    assert [choice.layers for choice in phases.cuts(train.student, None)] == [[0, 3]]


@pytest.mark.parametrize(("teacher", "by_student"), [("above", True), ("original", False)])
def test_the_rungs_come_first_and_then_the_rounds(teacher, by_student):
    ladder = LADDER | {"teacher": teacher, "rungs": [RUNG | {"layers": 4, "epochs": 5}, RUNG]}
    train = sections(train__ladder=ladder, train__rounds=ROUNDS).train
    plan = phases.steps(phases.cuts(train.student, train.ladder), train.ladder, train.rounds, 2)
    assert [(step.name, step.epochs, step.start, step.by_student) for step in plan] == [
        ("rung-1", 5, "cut", False),  # nothing is above it but the teacher
        ("rung-2", 1, "cut", by_student),
        ("round-1", 2, "cut", by_student),
        ("round-2", 2, "last", True),
        ("round-3", 2, "last", True),
    ]
    assert [step.choice.layers for step in plan[:3]] == [4, 3, 2]
    only = phases.steps(phases.cuts(train.student, None), None, None, 2)
    assert [(step.name, step.by_student) for step in only] == [("student", False)]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"train__ladder": LADDER | {"rungs": [RUNG, RUNG | {"layers": 4}]}},
         "train: ladder.rungs.1.layers: the rung above has 3, and a rung has no more than that, given 4"),
        ({"train__ladder": LADDER | {"rungs": [RUNG | {"layers": 1}]}}, "student.layers: the rung above has 1"),
        ({"train__ladder": LADDER | {"rungs": [RUNG | {"neurons": 8}, RUNG | {"neurons": 9}]}},
         "ladder.rungs.1.neurons: the rung above has 8"),
        ({"train__ladder": LADDER | {"rungs": [RUNG | {"layers": [0, 1]}]}}, "evenly goes with numbers of layers"),
        ({"train__ladder": LADDER | {"rungs": [RUNG | {"layers": [0, 1]}]}, "train__student__layers": [0, 2],
          "train__student__layer_choice": "listed"}, r"which has the layers \[0, 1\], given \[0, 2\] with \[2\]"),
        ({"train__ladder": LADDER | {"rungs": []}}, "train.ladder.rungs: list should have at least 1"),
        ({"train__ladder": LADDER, "train__student": PRETRAINED},
         "ladder: needs a student cut from the teacher"),
        ({"train__ladder": LADDER, "train__distilled__loss": "cross_entropy"}, "ladder.teacher: above needs"),
        ({"train__rounds": ROUNDS, "train__distilled__cross_entropy_share": 1.0}, "rounds: need a distilled.loss"),
        ({"train__rounds": ROUNDS | {"number": 1}}, "train.rounds.number: input should be greater than or equal to 2"),
        ({"train__rounds": ROUNDS | {"average_decay": 1.0}}, "train.rounds.average_decay: input should be less than 1"),
    ],
)  # fmt: skip
def test_params_that_mean_nothing_are_refused(changes, words):
    with pytest.raises(UserError, match=words):
        sections(**changes)


def test_the_average_is_the_exponential_one_and_goes_on_from_a_checkpoint(tmp_path):
    model = tiny.model(50, layers=1)
    weight, args, path = model.model.norm.weight, SimpleNamespace(output_dir=str(tmp_path)), tmp_path / "checkpoint-2"
    path.mkdir()
    whole, by_hand = Average(model, 0.75), None
    for step, value in enumerate([1.0, 3.0, 8.0], start=1):
        torch.nn.init.constant_(weight, value)
        whole.on_step_end(args, None, None, model=model)
        by_hand = value if by_hand is None else 0.75 * by_hand + 0.25 * value
        if step == 2:
            whole.on_save(args, SimpleNamespace(global_step=2), None)
    assert whole.network.model.norm.weight.tolist() == pytest.approx([by_hand] * 32)
    resumed = Average(model, 0.75)
    resumed.on_train_begin(args, SimpleNamespace(global_step=2), None)
    resumed.on_step_end(args, None, None, model=model)
    for own, other in zip(whole.network.parameters(), resumed.network.parameters(), strict=True):
        assert torch.equal(own, other)


@pytest.mark.slow
def test_a_ladder_is_trained_rung_by_rung_and_its_rungs_are_kept_with_the_student(finished, tmp_path):
    folder = changed(copy_repository(finished, tmp_path / "repository"), ladder=LADDER)
    for name in ("train init", "train sft 7", "train distilled 7"):
        stage(folder, name)
    found = record(folder, "distilled-7")
    assert list(found["trainings"]) == ["rung-1", "student"]
    assert [one["layers"] for one in found["trainings"].values()] == [[0, 2, 3], [0, 3]]
    assert found["layers"] == record(folder, "init")["layers"] == [0, 3]
    sizes = [tiny.teacher().num_parameters(), *(one["parameters"] for one in found["trainings"].values())]
    assert sizes == sorted(sizes, reverse=True)
    assert found["parameters"] == sizes[2] < sizes[1]
    rung = AutoModelForCausalLM.from_pretrained(folder / "models/distilled-7/rung-1")
    assert rung.config.num_hidden_layers == 3
    assert rung.num_parameters() == sizes[1]
    losses = [one["validation_loss"] for one in found["trainings"].values()]
    assert found["validation_loss"] == losses[1]
    # what is cut from the trained rung starts better than the untrained student of the same layers
    assert found["trainings"]["student"]["first_validation_loss"] != record(folder, "init")["validation_loss"]
    control = record(folder, "sft-7")
    assert [control[name] for name in ("steps", "epochs", "response_tokens")] == [
        found[name] for name in ("steps", "epochs", "response_tokens")
    ]
    assert found["epochs"] == 3
    table = log(folder, "distilled-7")
    assert table.training.unique().tolist() == ["untrained", "rung-1", "student"]
    assert table.epoch.max() == 3
    # a validation is at the step that is nearest to the end of its epoch: the student's second may end between two
    validations = table[table.split == "validation"]
    own = found["steps"] - validations.step.iloc[1]
    assert validations.epoch.tolist() == pytest.approx([0, 1, 1 + round(own / 2) / (own / 2), 3], abs=1e-3)


@pytest.mark.slow
def test_the_rung_above_is_another_teacher_than_the_original(finished, tmp_path):
    found = {}
    for teacher in ("above", "original"):
        folder = changed(copy_repository(finished, tmp_path / teacher), ladder=LADDER | {"teacher": teacher})
        stage(folder, "train distilled 7")
        found[teacher] = written(folder, "distilled-7")
    one, other = found.values()
    assert one["models/distilled-7/rung-1/model.safetensors"] == other["models/distilled-7/rung-1/model.safetensors"]
    assert one["models/distilled-7/model.safetensors"] != other["models/distilled-7/model.safetensors"]


@pytest.mark.slow
def test_a_round_is_taught_by_the_student_of_the_last_and_the_best_is_kept(finished, tmp_path):
    folder = changed(copy_repository(finished, tmp_path / "repository"), rounds=ROUNDS)
    stage(folder, "train distilled 7")
    found, table = record(folder, "distilled-7"), log(folder, "distilled-7")
    losses = {name: one["validation_loss"] for name, one in found["trainings"].items()}
    assert list(losses) == ["round-1", "round-2", "round-3"]
    assert found["kept"] == min(losses, key=losses.get)
    assert found["validation_loss"] == min(losses.values())
    ends = table[table.split == "validation"].groupby("training").loss.last()
    assert ends[found["kept"]] == found["validation_loss"]
    steps = table[table.split == "train"].groupby("training").loss.first()
    assert steps["round-1"] > 0.1
    assert abs(steps["round-2"]) < 1e-3, "a student differs from itself before its first step"
    curves = (folder / "metrics/live/distilled-7/plots/metrics/validation/loss.tsv").read_text().splitlines()[1:]
    assert [float(line.split()[1]) for line in curves] == pytest.approx(
        table[table.split == "validation"].loss.tolist(), abs=1e-3
    )
    axes = draw_loss(table.assign(variant="distilled"), "token").axes[0]
    assert [text.get_text() for text in axes.texts if text.get_text().startswith("round")] == list(losses)
    assert [len(line.get_xdata()) for line in axes.lines[:3]] == [2, 2, 2]


@pytest.mark.slow
def test_where_the_first_round_is_the_best_it_is_kept(finished, tmp_path):
    rounds = ROUNDS | {"number": 2, "start": "untrained"}
    folder = changed(copy_repository(finished, tmp_path / "repository"), rounds=rounds)
    stage(folder, "train distilled 7")
    found, model = record(folder, "distilled-7"), "models/distilled-7/model.safetensors"
    first, second = (one["validation_loss"] for one in found["trainings"].values())
    assert first < second, "the last is the best, so that this proves nothing"
    assert (found["kept"], found["validation_loss"]) == ("round-1", first)
    assert (folder / model).read_bytes() == (finished / model).read_bytes(), "its first round is what it is without"


@pytest.mark.slow
def test_a_course_that_is_killed_in_each_training_ends_with_the_same_bytes(finished, tmp_path):
    rounds = ROUNDS | {"number": 2, "start": "untrained", "average_decay": 0.8}
    folder = changed(copy_repository(finished, tmp_path / "repository"), ladder=LADDER, rounds=rounds)
    stage(folder, "train distilled 7")
    whole = written(folder, "distilled-7")
    assert len(whole) > 10
    for name in ("rung-1", "round-1", "round-2"):
        stop_command(folder, stage_command("train distilled 7"), at=f"{name}/checkpoint-4/complete")
        assert list((folder / ".distill").glob(f"checkpoints/*/{name}")), f"{name} was not interrupted"
    said = stage(folder, "train distilled 7").stdout
    assert "rung-1 has been trained" in said
    assert written(folder, "distilled-7") == whole
    assert not list((folder / ".distill").glob("checkpoints/*"))
    changed(folder, rounds=rounds | {"average_decay": None})
    stage(folder, "train distilled 7")
    assert written(folder, "distilled-7") != whole, "the average has taught nothing"


@pytest.mark.parametrize(
    ("rungs", "words"),
    [
        ([RUNG | {"layers": 5}], "train.ladder, rung-1.layers: 5 is more than the teacher's 4 layers"),
        ([RUNG | {"layers": 4}, RUNG | {"layers": 4}], "rung-2 has .* parameters and what it is cut from"),
    ],
)
def test_a_rung_that_is_not_smaller_than_the_one_above_is_refused(finished, tmp_path, rungs, words):
    folder = changed(copy_repository(finished, tmp_path / "repository"), ladder=LADDER | {"rungs": rungs})
    done = stage(folder, "train init", check=False)
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert re.search(words, done.stderr), done.stderr
