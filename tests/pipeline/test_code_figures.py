"""Limits of the code's size and types, and that exceeding one is noticed."""

import pytest

from tools.code_figures import FIXED_SIGNATURES, MAX_ARGUMENTS, ROOT, arguments, figures, functions

LONG_MAIN = "def main():\n" + "    print()\n" * 40
SEVEN = "class A:\n    def f(self, a, b, c, d, *e, f=0, **g): ...\n"
UNTYPED = "def f(student_model: Any, tokenizer: 'list[str]', network: Any | None, models: Any): ...\n"


@pytest.fixture
def project(tmp_path):
    """A project within all limits."""
    for name in ("distill", "stages", "tools", "tests"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "a.py").write_text("def main(a, b, c, d, e, f):\n    pass\n")
    return tmp_path


def excesses(root):
    return [(result.name, excess) for result in figures(root) for excess in result.excesses]


def test_the_code_keeps_its_limits():
    assert excesses(ROOT) == []


def test_a_project_within_all_limits_passes(project):
    assert excesses(project) == []
    assert [result.largest for result in figures(project)] == [1, 6, 2, 2, 2, 0]


@pytest.mark.parametrize(
    ("file", "content", "name", "excess"),
    [
        ("tools/b.py", LONG_MAIN, "lines of a main function", "tools/b.py:main: 41"),
        ("distill/b.py", SEVEN, "arguments of a function", "distill/b.py:A.f: 7"),
        ("stages/b.py", "print()\n" * 151, "lines of a stage script", "stages/b.py: 151"),
        ("distill/b.py", "print()\n" * 201, "lines of a module", "distill/b.py: 201"),
        ("stages/b.py", UNTYPED, "tokenizer and model arguments of type Any in a function", "stages/b.py:f: 2"),
    ],
)
def test_each_excess_is_noticed(project, file, content, name, excess):
    (project / file).write_text(content)
    assert excesses(project) == [(name, excess)]


def test_a_folder_of_21_files_is_noticed(project):
    for number in range(20):
        (project / "tests" / f"test_{number}.py").touch()
    assert excesses(project) == [("Python files in a folder", "tests: 21")]


@pytest.mark.parametrize("place", FIXED_SIGNATURES)
def test_an_exempt_function_exists_and_needs_it(place):
    file, _, name = place.partition(":")
    assert len(arguments(dict(functions(ROOT / file))[name])) > MAX_ARGUMENTS
