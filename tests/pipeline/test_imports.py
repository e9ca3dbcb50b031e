"""The order of the rooms in distill/, as import-linter checks it."""

import re
import shutil
import subprocess
import tomllib
from pathlib import Path

import pytest
import tiny

LAYERS = tomllib.loads((tiny.ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"][0]["layers"]


def copy_code(folder: Path) -> Path:
    """Copies distill/ and the contract into the folder."""
    shutil.copytree(tiny.ROOT / "distill", folder / "distill", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(tiny.ROOT / "pyproject.toml", folder)
    return folder


def lint_imports(folder: Path) -> subprocess.CompletedProcess[str]:
    """Runs the linter in the folder."""
    command = ["lint-imports", "--no-logo", "--no-cache"]
    environment = tiny.environment() | {"PYTHONPATH": str(folder)}
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)


def test_every_room_has_a_layer():
    rooms = {path.parent.name for path in (tiny.ROOT / "distill").glob("*/__init__.py")}
    assert {room for layer in LAYERS for room in layer.split(" | ")} == rooms


def test_no_room_imports_a_later_one(tmp_path):
    done = lint_imports(copy_code(tmp_path))
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize(
    ("file", "imported"),
    [
        ("core/text.py", "distill.modeling.chat"),  # upwards
        ("training/fit.py", "distill.evaluation.metrics"),  # between rooms of one layer
    ],
)
def test_an_import_against_the_order_is_named_by_line(tmp_path, file, imported):
    path = copy_code(tmp_path) / "distill" / file
    path.write_text(path.read_text() + f"\nimport {imported}\n")
    line = len(path.read_text().splitlines())
    module = f"distill.{file.removesuffix('.py').replace('/', '.')}"
    done = lint_imports(tmp_path)
    assert done.returncode == 1
    assert re.search(rf"^- {re.escape(module)} -> {re.escape(imported)} \(l\.{line}\)$", done.stdout, re.MULTILINE)
