"""Tasks of lm-eval that would run Python: files with functions, and tasks whose code a model writes."""

import benchmark_task
import pytest

from distill.cleaning.benchmark_texts import task_texts
from distill.core.errors import UserError
from distill.core.task_code import require_safe_task
from distill.evaluation import benchmarks
from distill.params.evaluate import Benchmark

PYTHON = "from pathlib import Path\nPath(__file__).with_name('pwned').touch()\ndef rows(value):\n    return value\n"


def benchmark(task: str) -> Benchmark:
    return Benchmark(task=task, **benchmark_task.SETTINGS)


def write(tmp_path, lines: str, main: str = ""):
    path = benchmark_task.write(tmp_path)
    (tmp_path / "code.py").write_text(PYTHON)
    text = path.read_text().partition("metric_list:")[0] if "metric_list" in lines else path.read_text()
    path.write_text(main + text + lines)
    return path


@pytest.mark.parametrize(
    ("main", "lines"),
    [
        ("", "process_docs: !function code.rows\n"),
        ("%TAG !f! !fun\n---\n", "process_docs: !f!ction code.rows\n"),
        ("", "metric_list:\n  - metric: !function code.rows\n"),
        ("", "? !function code.rows\n: 1\n"),
        ("", "metadata: &a\n  - !function code.rows\n"),
    ],
)
def test_python_beside_a_task_runs_only_where_params_name_it(main, lines, tmp_path):
    path = write(tmp_path, lines, main)
    for load in (
        lambda: benchmarks.load_tasks(benchmark(str(path))),
        lambda: benchmarks.require_safe([benchmark(str(path))]),
        lambda: list(task_texts(str(path))),
    ):
        with pytest.raises(UserError, match=r"runs Python of files beside it \(code\.rows\)"):
            load()
    assert not (tmp_path / "pwned").exists()


def test_python_of_an_included_file_is_found(tmp_path):
    path = write(tmp_path, "include: other\n")
    (tmp_path / "other").write_text("include: [third]\n")
    (tmp_path / "third").write_text("process_docs: !function code.rows\n")
    with pytest.raises(UserError, match=r"code\.rows"):
        require_safe_task("evaluate.benchmarks", str(path))


def test_python_runs_where_params_name_it(tmp_path, monkeypatch):
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")
    path = write(tmp_path, "process_docs: !function code.rows\n")
    (task,) = benchmarks.load_tasks(benchmark(f"python:{path}"))
    assert len(task.eval_docs) == 5
    assert (tmp_path / "pwned").exists()


@pytest.mark.parametrize("name", ["humaneval", "mbpp_instruct", "python:mbpp", "longproc_pseudo_to_code_2k"])
def test_a_task_that_runs_a_models_code_is_refused_at_once(name):
    with pytest.raises(UserError, match="runs code that a model writes"):
        benchmarks.require_safe([benchmark(name)])


def test_unsafe_files_and_groups_are_refused(tmp_path):
    path = write(tmp_path, "unsafe_code: true\n")
    group = tmp_path / "group.yaml"
    group.write_text("group: g\ntask: [hellaswag, humaneval]\n")
    for task in (path, group, f"python:{path}"):
        with pytest.raises(UserError, match="runs code that a model writes"):
            require_safe_task("evaluate.benchmarks", str(task))


def test_tasks_of_lm_eval_and_plain_files_are_taken(tmp_path):
    benchmarks.require_safe([benchmark(name) for name in ("hellaswag", "ai2_arc", str(benchmark_task.write(tmp_path)))])
