"""Processes that start at once: forks of one that has imported all that stages import, which takes them seconds."""

import gc
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

import pytest
import tiny

STAGES = ("generate", "clean", "targets", "weight", "init", "train", "evaluate", "plot")
LATER = ("accelerate", "datasets", "lm_eval.evaluator", "transformers.models.llama.modeling_llama")  # as they work
PRINTED = ("stdout", "stderr")
CONTEXT = multiprocessing.get_context("forkserver")


def start(target: Callable[..., None], *arguments: Any) -> BaseProcess:
    """Starts a function in a process that can be killed at any moment."""
    CONTEXT.set_forkserver_preload(["query_run", *(f"stages.{name}" for name in STAGES), *LATER])
    # the server takes its path from the environment alone (CPython issue 117378)
    surroundings = tiny.environment() | {"PYTHONPATH": os.pathsep.join(sys.path)}
    with mock.patch.dict(os.environ, surroundings, clear=True):
        forkserver.ensure_running()
    process = CONTEXT.Process(target=target, args=arguments)
    process.start()
    return process


def _settle(folder: str, log: str, surroundings: dict[str, str]) -> None:
    """Makes the process one that was called in the folder; what it prints goes into files of `log`."""
    for place, name in enumerate(PRINTED, start=1):
        with Path(f"{log}/{name}").open("w") as file:
            os.dup2(file.fileno(), place)
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(surroundings)


def _stage(folder: str, log: str, surroundings: dict[str, str], word: str, *arguments: str) -> None:
    """In a process of its own: what `python -m stages.WORD` does in the folder."""
    _settle(folder, log, surroundings)
    sys.argv = [f"stages/{word}.py", *arguments]
    sys.modules["distill.core.errors"].run_main(sys.modules[f"stages.{word}"].main, os.environ)


def _tests(folder: str, log: str, surroundings: dict[str, str], *arguments: str) -> None:
    """In a process of its own: what `python -m pytest` does in the folder, by the modules that are there."""
    _settle(folder, log, surroundings)
    ours = {"distill", "stages", "tests", "tools", *(path.stem for path in (tiny.ROOT / "tests/support").glob("*.py"))}
    for name in [name for name in sys.modules if name.partition(".")[0] in ours]:
        del sys.modules[name]
    gc.freeze()  # what all processes share is not looked through, and so not copied
    sys.path[:] = [part for part in sys.path if Path(part) not in (tiny.ROOT, tiny.ROOT / "tests/support")]
    sys.exit(pytest.main([*arguments]))


def _done(
    target: Callable[..., None], folder: Path, arguments: tuple[str, ...], timeout: float
) -> CompletedProcess[str]:
    """Starts `_stage` or `_tests` there and waits for its end."""
    with tempfile.TemporaryDirectory() as log:
        process = start(target, str(folder), log, tiny.environment(), *arguments)
        process.join(timeout)
        ended = process.exitcode is not None
        process.kill()
        output, errors = (Path(f"{log}/{part}").read_text() for part in PRINTED)
    assert ended, f"{' '.join(arguments)} takes longer than {timeout} s:\n{output}\n{errors}"
    return CompletedProcess(arguments, process.exitcode, output, errors)


def stage(folder: Path, name: str, check: bool = True, timeout: float = 240) -> CompletedProcess[str]:
    """Runs a stage of the working tree there, such as `train sft 7`: `folder` has no stage of its own that differs."""
    done = _done(_stage, folder, tuple(name.split()), timeout)
    assert not check or done.returncode == 0, f"{name} failed:\n{done.stdout}\n{done.stderr}"
    return done


def run_pytest(folder: Path, *arguments: str, timeout: float = 240) -> CompletedProcess[str]:
    """Runs pytest with these arguments there: `folder` has a project of its own, other than the working tree's."""
    return _done(_tests, folder, arguments, timeout)
