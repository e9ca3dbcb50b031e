"""The journal of each teacher, and what its queries have cost."""

from collections.abc import Iterable
from pathlib import Path

from distill.core.files import value_hash
from distill.generation.budget import Budget, cost
from distill.generation.journal import Journal
from distill.params.teachers import LocalTeacher, Teacher


def endpoint(teacher: Teacher) -> str:
    """The base URL of an API, or `local`."""
    return "local" if teacher.kind == "local" else teacher.base_url


def open_journal(teacher: Teacher, folder: Path) -> Journal:
    """The journal of a teacher at its endpoint. It keeps the completions of all params."""
    settings = {"teacher": teacher.name, "endpoint": endpoint(teacher)}
    return Journal(journal_path(teacher, folder), settings)


def journal_path(teacher: Teacher, folder: Path) -> Path:
    """The file of that journal."""
    return folder / f"{teacher.name}-{value_hash(endpoint(teacher))[:16]}.jsonl"


def remaining_budget(limit: float | None, teachers: Iterable[Teacher], folder: Path) -> Budget:
    """The budget, less what was or may have been paid according to the journals of API teachers."""
    spent = 0.0
    for teacher in teachers:
        if teacher.kind == "openai" and journal_path(teacher, folder).exists():
            with open_journal(teacher, folder) as journal:
                spent += cost(teacher.price, journal.billed)
    return Budget(limit, spent)


def identity(teacher: LocalTeacher, known: dict[str, str | None]) -> str | None:
    """The hash of the files of a local teacher, computed once and kept in `known`; None where there are none."""
    if teacher.name not in known:
        from distill.modeling import loading  # torch takes seconds to import, and APIs do not need it

        known[teacher.name] = loading.identity(teacher)
    return known[teacher.name]
