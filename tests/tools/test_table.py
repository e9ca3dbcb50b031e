"""The commands that print the main table and samples, or write them into a file."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from plotting import METRICS

from distill.cards import markdown
from distill.reporting import main_table
from distill.reporting.score_tables import MODELS

ROOT = Path(__file__).parents[2]
TABLE, SAMPLES = ("tools.table",), ("tools.samples",)


def command(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    line = [sys.executable, "-m", *arguments]
    return subprocess.run(line, cwd=folder, env=environment, capture_output=True, text=True, check=False)


def write_metrics(folder: Path, value: object) -> None:
    (folder / "metrics").mkdir(exist_ok=True)
    (folder / "metrics/metrics.json").write_text(json.dumps(value))


def write_samples(folder: Path, count: int) -> None:
    (folder / "metrics").mkdir(exist_ok=True)
    rows = [
        {
            "messages": [{"role": "user", "content": f"Why {index} | <b>?"}],
            "reference": "Because.",
            "generated": dict.fromkeys(MODELS, "No.") | {"teacher": "So *it* is.", "distilled": "So."},
        }
        for index in range(count)
    ]
    (folder / "metrics/samples.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def test_the_table_is_printed_or_written_into_a_file(tmp_path):
    write_metrics(tmp_path, METRICS)
    begin, end = markdown.marks("table")
    block = f"{markdown.table(main_table.results(METRICS))}\n\n{markdown.table(main_table.goals(METRICS))}"
    assert command(tmp_path, *TABLE).stdout == f"{block}\n"
    readme = tmp_path / "README.md"
    readme.write_text(f"# é\n{begin}\n{end}\nend\n", encoding="utf-8")
    assert command(tmp_path, *TABLE, "--write", "README.md").returncode == 0
    assert readme.read_text(encoding="utf-8") == f"# é\n{begin}\n{block}\n{end}\nend\n"


def test_three_samples_are_printed_or_written_into_a_file(tmp_path):
    write_samples(tmp_path, 4)
    begin, end = markdown.marks("samples")
    printed = command(tmp_path, *SAMPLES).stdout
    lines = printed.splitlines()
    assert lines[0] == "| held-out prompt | teacher | distilled student |"
    assert lines[2] == "| Why 0 &#124; &lt;b&gt;? | So &#42;it&#42; is. | So. |"
    assert len(lines) == 5
    assert len(command(tmp_path, *SAMPLES, "--num-samples", "1").stdout.splitlines()) == 3
    table_marks = "\n".join(markdown.marks("table"))
    readme = tmp_path / "README.md"
    readme.write_text(f"{table_marks}\n{begin}\nold\n{end}\n", encoding="utf-8")
    assert command(tmp_path, *SAMPLES, "--write", "README.md").returncode == 0
    assert readme.read_text(encoding="utf-8") == f"{table_marks}\n{begin}\n{printed}{end}\n"


@pytest.mark.parametrize(
    ("metrics", "arguments", "words"),
    [
        (None, TABLE, "it comes from stage evaluate"),
        ({"teacher": {}}, TABLE, "number at teacher.accuracy"),
        ([], TABLE, "must be a JSON object, got []"),
        (METRICS, (*TABLE, "--write", "nowhere.md"), "nowhere.md is missing"),
        (None, SAMPLES, "it comes from stage evaluate"),
        (None, (*SAMPLES, "--num-samples", "0"), "--num-samples must be at least 1, got 0"),
    ],
)
def test_mistakes_end_in_one_message(tmp_path, metrics, arguments, words):
    if metrics is not None:
        write_metrics(tmp_path, metrics)
    done = command(tmp_path, *arguments)
    assert done.returncode == 1
    assert words in done.stderr
    assert "Traceback" not in done.stderr
