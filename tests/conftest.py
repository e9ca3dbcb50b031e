"""What many tests start from, built once in a session."""

import shutil
from pathlib import Path

import pytest
import tiny


@pytest.fixture(scope="session")
def finished(tmp_path_factory) -> Path:
    """A repository in which `dvc repro` ran once."""
    folder = tiny.repository(tmp_path_factory.mktemp("first"))
    tiny.run(folder, "dvc", "repro")
    return folder


@pytest.fixture(scope="session")
def committed(finished, tmp_path_factory) -> Path:
    """The finished repository at another place, its results committed, its cache beside them. Not to be changed."""
    folder = tmp_path_factory.mktemp("committed") / "repository"
    shutil.copytree(finished, folder)
    tiny.run(folder, "git", "add", "-A")
    tiny.run(folder, "git", "commit", "-qm", "Results")
    return folder
