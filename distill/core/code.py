"""The project's own code that a script imports, for keys of checkpoints and caches."""

import ast
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[2]
PACKAGES = ("distill", "stages", "tools")
EXEMPT = ROOT / "distill/params"  # accepts or refuses values, which keys hold themselves


@cache
def direct_imports(path: Path) -> frozenset[Path]:
    """The project's files that a file imports, inside functions too."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            names = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
        for name in names:
            file = ROOT.joinpath(*name.split(".")).with_suffix(".py")
            if name.partition(".")[0] in PACKAGES and file.is_file():
                found.add(file)
    return frozenset(found)


def imported_code(script: Path) -> list[Path]:
    """The script and the project's files that it imports, directly or not, sorted; the schema of params aside."""
    found: set[Path] = set()
    todo = [script.resolve()]
    while todo:
        path = todo.pop()
        if path not in found and EXEMPT not in path.parents:
            found.add(path)
            todo.extend(direct_imports(path))
    return sorted(found)
