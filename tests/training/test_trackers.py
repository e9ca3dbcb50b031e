"""Where a training can be watched: DVCLive's files, and trackers that call nobody."""

import importlib.util
import json
import shutil
import signal
from pathlib import Path
from types import SimpleNamespace

import forks
import pytest
import tiny
import yaml

from distill.core.errors import UserError
from distill.training import trackers

TRAIN = ["python", "-m", "stages.train"]
LOG = [
    {"step": 2, "loss": 0.123456789, "grad_norm": 1.5, "learning_rate": 0.1, "epoch": 0.5},
    {"step": 4, "validation_loss": 2.0, "epoch": 1.0},
    {"step": 4, "loss": 0.1, "grad_norm": 1.0, "learning_rate": 0.05, "epoch": 1.0},
    {"step": 4, "train_runtime": 12.3, "train_loss": 0.2},
]


def curve_files(folder: Path, restored: int, cut: int | None = None) -> dict[str, bytes]:
    """DVCLive's files after a training that went on with `restored` entries, after one that a kill cut off."""
    killed = [] if cut is None else [(LOG[:0], cut)]
    for before, until in [*killed, (LOG[:restored], None)]:
        state = SimpleNamespace(is_world_process_zero=True, log_history=list(before))
        curves = trackers.DVCLiveCurves(folder, untrained=3.0)
        curves.on_train_begin(None, state, None)
        for entry in LOG[len(before) : until]:
            state.log_history.append(entry)
            curves.on_log(None, state, None)
        if until is None:
            curves.on_train_end(None, state, None)
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def test_a_resumed_run_leaves_the_same_curves(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    tiny.run(tmp_path, "git", "init", "-q")
    tiny.run(tmp_path, "dvc", "init", "-q")
    tiny.run(tmp_path, "git", "commit", "-qm", "DVC")
    uninterrupted = curve_files(tmp_path / "uninterrupted", restored=0)
    assert uninterrupted["plots/metrics/train/loss.tsv"] == b"step\tloss\n2\t0.123457\n4\t0.1\n"
    assert uninterrupted["plots/metrics/validation/loss.tsv"] == b"step\tloss\n0\t3.0\n4\t2.0\n"
    assert json.loads(uninterrupted["metrics.json"])["step"] == 4
    assert not any(b"runtime" in content for content in uninterrupted.values())
    # killed after the third entry, with a checkpoint of the first
    assert curve_files(tmp_path / "cut", restored=1, cut=3) == uninterrupted


def test_a_run_leaves_curves_and_no_commits(finished, tmp_path):
    folder = shutil.copytree(finished, tmp_path / "repository", ignore=shutil.ignore_patterns("tmp"))
    live = folder / "metrics/live/distilled-7"
    steps = (live / "plots/metrics/train/loss.tsv").read_text().splitlines()
    log = (folder / "metrics/train/distilled-7_log.csv").read_text()
    assert len(steps) - 1 == log.count(",train,") > 1
    assert "metrics/live/distilled-7/metrics.json" in tiny.run(folder, "dvc", "metrics", "show").stdout
    assert tiny.run(folder, "git", "for-each-ref", "refs/exps").stdout == ""
    assert len(tiny.run(folder, "git", "log", "--oneline").stdout.splitlines()) == 1
    assert not (folder / "dvclive").exists()


@pytest.mark.parametrize("git", ["without a commit", "without a repository"])
def test_training_works_without_a_commit(finished, tmp_path, git):
    folder = shutil.copytree(
        finished, tmp_path / "new", ignore=shutil.ignore_patterns(".distill", "cache", "tmp", "live")
    )
    if git == "without a commit":
        tiny.run(folder, "git", "update-ref", "-d", "HEAD")
    else:
        shutil.rmtree(folder / ".git")
    shutil.rmtree(folder / "models/sft-7")
    forks.stage(folder, "train sft 7")
    for name in ("models/sft-7/model.safetensors", "metrics/live/sft-7/plots/metrics/train/loss.tsv"):
        assert (folder / name).read_bytes() == (finished / name).read_bytes()


def test_a_missing_tracker_is_named_with_its_command(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    trackers.require(None)
    with pytest.raises(UserError, match=r"train.report_to: wandb is not installed: `make trackers` installs it"):
        trackers.require("wandb")


# In a process and its children: every address outside this machine that is looked up or called, a line each, in the
# file CALLS; and where KILL names a file, the end of the process that is about to make it.
WATCH = """
import os, signal, sys
def hook(event, arguments):
    if event == "open" and str(arguments[0]).endswith(os.environ["KILL"]):
        os.kill(os.getpid(), signal.SIGKILL)
    asked = arguments[0] if event == "socket.getaddrinfo" else arguments[1] if event == "socket.connect" else None
    host = asked[0] if isinstance(asked, tuple) else asked if event == "socket.getaddrinfo" else None
    if host and host not in ("localhost", "127.0.0.1", "::1"):
        with open(os.environ["CALLS"], "a") as file:
            file.write(f"{host}\\n")
sys.addaudithook(hook)
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("tracker", "sign"),
    [("wandb", "wandb/offline-run-*/*.wandb"), ("mlflow", "mlflow.db"), ("trackio", "trackio/distill.db")],
)
def test_a_tracker_calls_no_server_and_changes_nothing(committed, tmp_path, monkeypatch, tracker, sign):
    pytest.importorskip(tracker)
    folder = tmp_path / "repository"
    shutil.copytree(committed, folder, ignore=shutil.ignore_patterns("cache", "tmp", ".distill"))
    value = yaml.safe_load((folder / "params.yaml").read_text())
    value["train"]["report_to"] = tracker
    (folder / "params.yaml").write_text(yaml.safe_dump(value, sort_keys=False))
    before = (folder / "models/sft-7/model.safetensors").read_bytes()
    for name, text in (("home/.gitconfig", ""), ("watch/sitecustomize.py", WATCH), ("calls", "")):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    for variable, name in (("HOME", "home"), ("PYTHONPATH", "watch"), ("CALLS", "calls")):
        monkeypatch.setenv(variable, str(tmp_path / name))
    shutil.rmtree(folder / "models/sft-7")
    monkeypatch.setenv("KILL", "checkpoint-4/complete")
    assert tiny.run(folder, *TRAIN, "sft", "7", check=False).returncode == -signal.SIGKILL
    monkeypatch.setenv("KILL", "no file")
    assert "resuming from checkpoint-2" in tiny.run(folder, *TRAIN, "sft", "7").stdout
    assert list((folder / ".distill/tracking").glob(sign))
    assert (folder / "models/sft-7/model.safetensors").read_bytes() == before
    assert tiny.run(folder, "git", "status", "--porcelain").stdout == " M params.yaml\n"
    assert (tmp_path / "calls").read_text() == ""
    assert [path.name for path in (tmp_path / "home").rglob("*") if path.is_file()] == [".gitconfig"]
