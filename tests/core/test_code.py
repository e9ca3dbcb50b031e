"""The imported code against what Python imports."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

from distill.core.code import EXEMPT, PACKAGES, ROOT, direct_imports, imported_code

SOURCES = [path for package in PACKAGES for path in sorted((ROOT / package).rglob("*.py"))]
LOADED = """
import sys
import stages.clean
print(*(m.__file__ for n, m in sys.modules.items() if n.split(".")[0] in ("distill", "stages") and m.__file__))
"""


def test_imported_code_covers_what_python_imports():
    done = subprocess.run([sys.executable, "-c", LOADED], cwd=ROOT, capture_output=True, text=True, check=True)
    loaded = {Path(name) for name in done.stdout.split() if not name.endswith("__init__.py")}
    listed = set(imported_code(ROOT / "stages/clean.py"))
    assert ROOT / "distill/cleaning/dedup.py" in listed
    assert {path for path in loaded if EXEMPT not in path.parents} <= listed


def test_imported_code_has_no_schema_of_params():
    assert not [path for path in imported_code(ROOT / "stages/train.py") if EXEMPT in path.parents]


def test_an_import_inside_a_function_counts(tmp_path):
    script = tmp_path / "script.py"
    script.write_text("def later():\n    from distill.core import text\n    import distill.core.files\n")
    assert direct_imports(script) == {ROOT / "distill/core/text.py", ROOT / "distill/core/files.py"}
    assert {script, ROOT / "distill/core/errors.py"} < set(imported_code(script))


@pytest.mark.parametrize("path", [path for path in SOURCES if path.name == "__init__.py"], ids=str)
def test_an_init_file_holds_a_docstring_alone(path):
    body = ast.parse(path.read_text(encoding="utf-8")).body
    assert all(isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) for node in body)


def test_no_module_imports_by_relative_name():
    relative = [
        path
        for path in SOURCES
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.ImportFrom) and node.level
    ]
    assert relative == []
