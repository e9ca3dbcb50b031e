"""The project's own modules that a script imports, for the keys of checkpoints and caches.

Imports are read from the source, so that a module imported later, inside a function, counts too. The files
`__init__.py` hold docstrings alone and are left out.
"""

import ast
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[2]
PACKAGES = ("distill", "stages", "tools")
EXEMPT = ROOT / "distill/params"  # checks values, and the keys hold these values themselves


@cache
def direct_imports(path: Path) -> frozenset[Path]:
    """The project's modules that a file imports by absolute name, anywhere in it."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    modules = {ROOT.joinpath(*name.split(".")).with_suffix(".py") for name in names if name.split(".")[0] in PACKAGES}
    return frozenset(module for module in modules if module.is_file())


def imported_code(script: Path) -> list[Path]:
    """The script and the project's modules that it imports, directly or not, sorted, without the schema of params."""
    modules: set[Path] = set()
    queue = [script.resolve()]
    while queue:
        path = queue.pop()
        if path not in modules and EXEMPT not in path.parents:
            modules.add(path)
            queue.extend(direct_imports(path))
    return sorted(modules)
