"""Planted faults: the tables of all rooms, and a copy of the project to plant one in."""

import runpy
import shutil
from pathlib import Path
from subprocess import CompletedProcess
from typing import NamedTuple

import forks
import tiny

FOLDERS = ("distill", "stages", "tests", "tools")
FILES = ("params.yaml", "pyproject.toml")


class Fault(NamedTuple):
    """`right`, which occurs once in `file`, becomes `wrong`; `test` must notice."""

    name: str
    file: str
    right: str
    wrong: str
    test: str


def all_faults() -> list[Fault]:
    """The faults of every room, from tests/<room>/faults.py."""
    tables = sorted(tiny.ROOT.glob("tests/*/faults.py"))
    return [fault for table in tables for fault in runpy.run_path(str(table))["FAULTS"]]


def copy_project(folder: Path) -> Path:
    """Copies what the tests need into the folder."""
    for name in FOLDERS:
        shutil.copytree(tiny.ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in FILES:
        shutil.copy(tiny.ROOT / name, folder)
    return folder


def run_tests(folder: Path, *names: str) -> CompletedProcess[str]:
    """Runs these tests in the copy. Plugins that they do not need would take longer to load than they to run."""
    plugins = ["--disable-plugin-autoload", "-p", "pytest_timeout", "-p", "xdist.plugin", "-p", "no:cacheprovider"]
    options = ["-x", "--tb=short", f"--basetemp={folder / 'tmp'}"]
    return forks.run_pytest(folder, *plugins, *options, *(f"tests/{name}" for name in names))
