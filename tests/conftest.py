"""What many tests start from, built once in a session, and how two workers share it and the tests.

`tiny` and what it brings are imported as they are used: the process that hands out the tests needs none of it.
"""

import fcntl
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

DEFAULT_S = 300.0  # a test's time limit in pyproject.toml


def pytest_configure(config: pytest.Config) -> None:
    """Each worker takes one processor, for itself and for what its tests start; torch reads this as it is imported."""
    os.environ["OMP_NUM_THREADS"] = "1"


def allowed(item: pytest.Item) -> float:
    """Seconds that a test may take, by its mark."""
    mark = item.get_closest_marker("timeout")
    return float(mark.args[0]) if mark else DEFAULT_S


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """One file's tests build the finished repository, then come those that need none, then others that need it.

    So no worker waits for the other that builds it. Among each of these three the long ones come first.
    """
    needing = [item for item in items if "finished" in item.fixturenames]
    first = max(needing, key=allowed).path if needing else None

    def turn(item: pytest.Item) -> int:
        return (0 if item.path == first else 2) if "finished" in item.fixturenames else 1

    items.sort(key=lambda item: (turn(item), -allowed(item)))


def once(tmp_path_factory: pytest.TempPathFactory, name: str, make: Callable[[Path], None]) -> Path:
    """A folder that the first worker to need it makes, and all use."""
    place = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        place = place.parent
    folder, made = place / name, place / f"{name}.made"
    with (place / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not made.exists():
            shutil.rmtree(folder, ignore_errors=True)
            make(folder)
            made.touch()
    return folder


@pytest.fixture(scope="session")
def finished(tmp_path_factory) -> Path:
    """A repository in which `dvc repro` ran once. Others read it too: not to be changed, nor any command of DVC run."""
    import tiny

    def make(folder: Path) -> None:
        folder.mkdir()
        tiny.repository(folder)
        tiny.run(folder, "dvc", "repro")

    return once(tmp_path_factory, "finished", make)


@pytest.fixture(scope="session")
def committed(finished, tmp_path_factory) -> Path:
    """The finished repository at another place, its results committed, its cache beside them. Not to be changed."""
    import tiny

    def make(folder: Path) -> None:
        shutil.copytree(finished, folder / "repository", ignore=shutil.ignore_patterns("tmp"))
        tiny.run(folder / "repository", "git", "add", "-A")
        tiny.run(folder / "repository", "git", "commit", "-qm", "Results")

    return once(tmp_path_factory, "committed", make) / "repository"


@pytest.fixture(scope="module")
def tokenizer():
    """The tiny tokenizer."""
    import tiny

    return tiny.tokenizer()


@pytest.fixture(scope="module")
def model(tokenizer):
    """A random model of the tiny tokenizer's vocabulary."""
    import tiny

    return tiny.model(len(tokenizer))
