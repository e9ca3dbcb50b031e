"""Python that an lm-eval task would run: refused before anything is loaded, or allowed by name.

A YAML file of a task can name functions (`!function`) of Python files beside it, which lm-eval imports. Tasks marked
`unsafe_code` run the code that a model writes.
"""

import io
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError
from ruamel.yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

from distill.core.errors import UserError
from distill.core.lm_eval_tasks import task_manager

ALLOWED = "python:"  # before the path of a task's YAML file whose Python may run


def task_name(task: str) -> str:
    """The name or path of a task that params list."""
    return task.removeprefix(ALLOWED)


def require_safe_task(param: str, task: str) -> None:
    """Raises UserError for a task that runs Python of a file which `param` does not allow, or a model's code."""
    name = task_name(task)
    nodes = [] if name in task_manager().task_index else list(_file_nodes(Path(name)))
    members = [scalar.value for key in ("task", "include") for scalar in _scalars(nodes, key)]
    marked = any(scalar.value.lower() != "false" for scalar in _scalars(nodes, "unsafe_code"))
    if marked or any(map(_is_unsafe, [name, *members])):
        raise UserError(
            f"{param}: {name!r} runs code that a model writes (unsafe_code), which this project never does. "
            "Remove it from params.yaml; run it with lm-eval itself, in a container."
        )
    functions = sorted({str(node.value) for node in nodes if "function" in str(node.tag)})
    if functions and name == task:
        raise UserError(
            f"{param}: {name!r} runs Python of files beside it ({', '.join(functions)[:200]}). Read them. Write "
            f"{ALLOWED + name!r} in params.yaml if they may run."
        )


def _is_unsafe(name: str) -> bool:
    """Whether lm-eval marks this task of its own, or one of the group or tag, as unsafe."""
    entry = task_manager().task_index.get(name)
    if entry is None:
        return False
    if entry.cfg is None:  # a tag
        return any(map(_is_unsafe, sorted(entry.tags)))
    members = entry.cfg.get("task")
    names = [member.get("task") if isinstance(member, dict) else member for member in members or []]
    inside = isinstance(members, list) and any(_is_unsafe(str(member)) for member in names if member != name)
    return inside or entry.cfg.get("unsafe_code", False) is not False


def _file_nodes(path: Path, seen: tuple[Path, ...] = ()) -> Iterator[Node]:
    """The nodes of a task's YAML file and of the files that it includes."""
    if not path.is_file() or path.resolve() in seen:
        return
    try:
        root = YAML(typ="safe").compose(io.StringIO(path.read_text(encoding="utf-8")))
    except (OSError, UnicodeDecodeError, YAMLError, RecursionError) as error:
        raise UserError(f"{path} is not the YAML file of a task ({type(error).__name__}). Fix or remove it.") from None
    nodes = list(_nodes(root))
    yield from nodes
    for scalar in _scalars(nodes, "include"):
        yield from _file_nodes(path.parent / scalar.value, (*seen, path.resolve()))


def _nodes(root: Any) -> Iterator[Node]:
    """All nodes below one, each once."""
    queue, seen = [root], set()
    while queue:
        node = queue.pop()
        if not isinstance(node, Node) or id(node) in seen:
            continue
        seen.add(id(node))
        yield node
        if isinstance(node, SequenceNode):
            queue.extend(node.value)
        elif isinstance(node, MappingNode):
            queue.extend(part for pair in node.value for part in pair)


def _scalars(nodes: Sequence[Node], name: str) -> Iterator[ScalarNode]:
    """The texts below a key of any mapping among the nodes."""
    for node in nodes:
        for key, value in node.value if isinstance(node, MappingNode) else []:
            if isinstance(key, ScalarNode) and key.value == name:
                yield from (part for part in _nodes(value) if isinstance(part, ScalarNode))
