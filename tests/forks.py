"""Processes that start at once: forks of one that has imported all that stages import, which takes them seconds."""

import multiprocessing
import os
import sys
import tempfile
from collections.abc import Callable
from multiprocessing import forkserver
from multiprocessing.process import BaseProcess
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any
from unittest import mock

import tiny

STAGES = ("generate", "clean", "weight", "train", "evaluate", "plot")
LATER = ("accelerate", "datasets", "lm_eval.evaluator", "transformers.models.llama.modeling_llama")  # as they work
CONTEXT = multiprocessing.get_context("forkserver")


def start(target: Callable[..., None], *arguments: Any) -> BaseProcess:
    """Starts a function in a process that can be killed at any moment."""
    CONTEXT.set_forkserver_preload(["asking_run", *(f"stages.{name}" for name in STAGES), *LATER])
    # the server takes its path from the environment alone (CPython issue 117378)
    surroundings = tiny.environment() | {"PYTHONPATH": os.pathsep.join(sys.path)}
    with mock.patch.dict(os.environ, surroundings, clear=True):
        forkserver.ensure_running()
    process = CONTEXT.Process(target=target, args=arguments)
    process.start()
    return process


def _stage(folder: str, log: str, surroundings: dict[str, str], word: str, *arguments: str) -> None:
    """In a process of its own: what `python -m stages.WORD` does in the folder."""
    for place, name in enumerate(("stdout", "stderr"), start=1):
        with Path(f"{log}/{name}").open("w") as file:
            os.dup2(file.fileno(), place)
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(surroundings)
    sys.argv = [f"stages/{word}.py", *arguments]
    sys.modules["distill.errors"].run(sys.modules[f"stages.{word}"].main)


def stage(folder: Path, name: str, check: bool = True, timeout: float = 240) -> CompletedProcess[str]:
    """Runs a stage of the working tree there, such as `train sft 7`: `folder` has no stage of its own that differs."""
    with tempfile.TemporaryDirectory() as log:
        process = start(_stage, str(folder), log, tiny.environment(), *name.split())
        process.join(timeout)
        ended = process.exitcode is not None
        process.kill()
        output, errors = (Path(f"{log}/{part}").read_text() for part in ("stdout", "stderr"))
    assert ended, f"{name} takes longer than {timeout} s:\n{output}\n{errors}"
    assert not check or process.exitcode == 0, f"{name} failed:\n{output}\n{errors}"
    return CompletedProcess(name, process.exitcode, output, errors)
