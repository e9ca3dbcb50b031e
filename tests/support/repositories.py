"""Copies of the finished tiny repository, and commands in them."""

import hashlib
import shutil
import signal
import subprocess
from pathlib import Path
from typing import Any

import tiny
import yaml
from forks import stage

STOP = """
import os, sys
def hook(event, arguments):
    if event == "open" and str(arguments[0]).endswith(os.environ["STOP_AT"]):
        os.killpg(0, int(os.environ["STOP_BY"]))
sys.addaudithook(hook)
"""

OUTS = ("data", "models", "metrics")
MIXTURES = ("jsd", "skew_kl", "skew_reverse_kl")


def output_hashes(folder: Path) -> dict[str, str]:
    """The hash of every file that the stages wrote, except latencies."""
    hashes = {}
    for name in OUTS:
        for path in sorted((folder / name).rglob("*")):
            if path.is_file() and path.name != ".gitignore" and "latency" not in path.name:
                hashes[str(path.relative_to(folder))] = hashlib.sha256(path.read_bytes()).hexdigest()
    return hashes


def without_latency(files: dict[str, str]) -> dict[str, str]:
    """Without the files that contain the latency gain: the main table, the report and the figure of goals."""
    timed = ("metrics/metrics.json", "metrics/report.md", "metrics/report.html", "metrics/figures/goals.png")
    return {path: value for path, value in files.items() if path not in timed}


def copy_repository(finished: Path, folder: Path) -> Path:
    """Copies the finished repository with its outputs, without its cache and journals."""
    shutil.copytree(finished, folder, ignore=shutil.ignore_patterns("cache", "tmp", ".distill"), dirs_exist_ok=True)
    return folder


def copy_with_cache(finished: Path, folder: Path) -> Path:
    """Copies the finished repository as a user has it."""
    return shutil.copytree(finished, folder, ignore=shutil.ignore_patterns("tmp"))


def stage_command(name: str) -> list[str]:
    """The command that runs a stage."""
    word, *arguments = name.split()
    return ["python", "-m", f"stages.{word}", *arguments]


def stop_command(
    folder: Path, command: list[str], at: str = "checkpoint-4/complete", by: signal.Signals = signal.SIGKILL
) -> subprocess.CompletedProcess[str]:
    """Runs a command there and stops it when it opens the file `at`, by default once there is a checkpoint.

    A training this small ends before another process could find the right moment.
    """
    hook = folder.parent / "stop/sitecustomize.py"
    hook.parent.mkdir(exist_ok=True)
    hook.write_text(STOP)
    surroundings = tiny.environment() | {"PYTHONPATH": str(hook.parent), "STOP_AT": at, "STOP_BY": str(int(by))}
    done = subprocess.run(
        command, cwd=folder, env=surroundings, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        timeout=240, start_new_session=True, check=False,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a shell's background jobs ignore it
    )  # fmt: skip
    assert done.returncode != 0, f"it was not stopped:\n{done.stdout}"
    return done


def edit_params(folder: Path, changes: dict[str, Any]) -> None:
    """Sets values of the repository's params.yaml by dotted key; a number is an index of a list."""
    path = folder / "params.yaml"
    value = yaml.safe_load(path.read_text())
    for key, new in changes.items():
        *parents, last = key.split(".")
        section: Any = value
        for name in parents:
            section = section[int(name) if name.isdigit() else name]
        section[last] = new
    path.write_text(yaml.safe_dump(value, sort_keys=False))


def divergence(kind: str, tail: str | None = None, ce_weight: float = 0.0, beta: float = 0.5) -> dict[str, Any]:
    """The section train.distilled.loss of a divergence, with the keys of its kind."""
    mixture = {"beta": beta} if kind in MIXTURES else {}
    return {"kind": kind, "ce_weight": ce_weight, "temperature": 1.0, "tail": tail} | mixture


def retarget(folder: Path, loss: str, kind: str, **targets: Any) -> None:
    """Changes targets and loss of the experiment and runs the stages before its training."""
    section = {"teacher": "tiny", "batch_tokens": 256, "layers": None, "score_without_prompt": False, "kind": kind}
    tail = "bucket" if kind == "top_k" else None
    edit_params(folder, {"targets": section | targets, "train.distilled.loss": divergence(loss, tail)})
    for name in ("targets", "weight", "init"):
        stage(folder, name)
