"""Limits of the code's size and types: `python -m tools.code_figures`.

Prints each figure with its limit, then what exceeds it. Exits with 1 if anything does.
"""

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from distill.core.errors import UserError, run_main

ROOT = Path(__file__).parents[1]
CODE = ("distill", "stages", "tools")
MAX_FILES, MAX_ARGUMENTS, MAX_MAIN_LINES, MAX_STAGE_LINES, MAX_MODULE_LINES = 20, 6, 40, 150, 200
TYPED = ("tokenizer", "model", "network")  # arguments of these names, alone or after an underscore, are never `Any`

# the library that fixes the arguments of a function, by file:function
FIXED_SIGNATURES = {
    "distill/modeling/packing.py:_attend": "transformers: an attention function",
}

Function = ast.FunctionDef | ast.AsyncFunctionDef


@dataclass(frozen=True)
class Figure:
    """The largest value of something countable, its limit, and the places above the limit."""

    name: str
    largest: int
    limit: int
    excesses: list[str]


def sources(root: Path, folders: tuple[str, ...] = CODE) -> list[Path]:
    """The Python files below some folders, sorted."""
    return sorted(path for folder in folders for path in (root / folder).rglob("*.py"))


@cache
def functions(path: Path) -> list[tuple[str, Function]]:
    """The functions of a file in order, methods as Class.method."""

    def walk(node: ast.AST, prefix: str) -> Iterator[tuple[str, Function]]:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, Function):
                yield prefix + child.name, child
            inner = f"{child.name}." if isinstance(child, Function | ast.ClassDef) else ""
            yield from walk(child, prefix + inner)

    return list(walk(ast.parse(path.read_text(encoding="utf-8")), ""))


def arguments(function: Function) -> list[ast.arg]:
    """All arguments of a function, without `self` and `cls`."""
    listed = function.args
    variadic = [argument for argument in (listed.vararg, listed.kwarg) if argument]
    all_arguments = [*listed.posonlyargs, *listed.args, *listed.kwonlyargs, *variadic]
    return [argument for argument in all_arguments if argument.arg not in ("self", "cls")]


def is_untyped(argument: ast.arg) -> bool:
    """Whether a tokenizer or model is annotated with `Any`."""
    names = (
        {node.id for node in ast.walk(argument.annotation) if isinstance(node, ast.Name)} if argument.annotation else {}
    )
    return argument.arg.rpartition("_")[2] in TYPED and "Any" in names


def figure(name: str, limit: int, values: dict[str, int]) -> Figure:
    """The figure of some values by place."""
    excesses = [f"{place}: {value}" for place, value in values.items() if value > limit]
    return Figure(name, max(values.values(), default=0), limit, excesses)


def figures(root: Path) -> list[Figure]:
    """All figures of the project at `root`."""
    code = {path: str(path.relative_to(root)) for path in sources(root)}
    named = [(f"{place}:{name}", function) for path, place in code.items() for name, function in functions(path)]
    folders = {path.parent for path in sources(root, (*CODE, "tests"))}
    lines = {place: len(path.read_text().splitlines()) for path, place in code.items()}
    untyped = {name: sum(map(is_untyped, arguments(function))) for name, function in named}
    return [
        figure(
            "Python files in a folder",
            MAX_FILES,
            {str(folder.relative_to(root)): len(list(folder.glob("*.py"))) for folder in sorted(folders)},
        ),
        figure(
            "arguments of a function",
            MAX_ARGUMENTS,
            {name: len(arguments(function)) for name, function in named if name not in FIXED_SIGNATURES},
        ),
        figure(
            "lines of a main function",
            MAX_MAIN_LINES,
            {
                name: (function.end_lineno or 0) - function.lineno + 1
                for name, function in named
                if name.endswith(":main")
            },
        ),
        figure(
            "lines of a stage script",
            MAX_STAGE_LINES,
            {place: number for place, number in lines.items() if place.startswith("stages/")},
        ),
        figure("lines of a module", MAX_MODULE_LINES, lines),
        figure("tokenizer and model arguments of type Any in a function", 0, untyped),
    ]


def main() -> None:
    """Print the figures and fail if one exceeds its limit."""
    results = figures(ROOT)
    for result in results:
        print(f"{result.largest:4} of at most {result.limit:3}  {result.name}")
    excesses = [
        f"  {result.name}, at most {result.limit}: {excess}" for result in results for excess in result.excesses
    ]
    if excesses:
        raise UserError("\n".join(["the code exceeds its limits:", *excesses]))


if __name__ == "__main__":
    run_main(main)
