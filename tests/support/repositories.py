"""Copies of the finished tiny repository, and commands in them."""

import hashlib
import shutil
import signal
import subprocess
from pathlib import Path

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


def contents(folder: Path) -> dict[str, str]:
    """The hash of every file that the stages wrote, but for what time changes."""
    found = {}
    for part in OUTS:
        for path in sorted((folder / part).rglob("*")):
            if path.is_file() and path.name != ".gitignore" and "latency" not in path.name:
                found[str(path.relative_to(folder))] = hashlib.sha256(path.read_bytes()).hexdigest()
    return found


def without_timing(files: dict[str, str]) -> dict[str, str]:
    """Less what repeats the latency gain: the main table, and what is drawn from it."""
    drawn = ("metrics/metrics.json", "metrics/report.md", "metrics/report.html", "metrics/figures/goals.png")
    return {path: value for path, value in files.items() if path not in drawn}


def copied(finished: Path, folder: Path) -> Path:
    """The finished repository at another place, with its outputs, without its cache and journals."""
    shutil.copytree(finished, folder, ignore=shutil.ignore_patterns("cache", "tmp", ".distill"), dirs_exist_ok=True)
    return folder


def with_cache(finished: Path, folder: Path) -> Path:
    """The finished repository at another place, as a user has it."""
    return shutil.copytree(finished, folder, ignore=shutil.ignore_patterns("tmp"))


def command(name: str) -> list[str]:
    """What a user types to run a stage."""
    word, *arguments = name.split()
    return ["python", "-m", f"stages.{word}", *arguments]


def stopped(
    folder: Path, command: list[str], at: str = "checkpoint-4/whole", by: signal.Signals = signal.SIGKILL
) -> subprocess.CompletedProcess[str]:
    """Runs a command there that is stopped at a place of its work: at first where it has one checkpoint to go on from.

    A training this small ends sooner than another process finds the right moment.
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


def of_kind(folder, loss, **targets):
    """The same experiment with other targets, as far as its training."""
    path = folder / "params.yaml"
    value = yaml.safe_load(path.read_text())
    value["weight"]["targets"] = {"teacher": "tiny", "batch_tokens": 256, **targets}
    value["train"]["distilled"]["loss"] = loss
    path.write_text(yaml.safe_dump(value, sort_keys=False))
    stage(folder, "weight")
