import json
from pathlib import Path

import pandas as pd
import pytest

from distill import report
from distill.errors import UserError
from stages import plot
from tools import table

ROW = {
    "accuracy": 0.91234, "accuracy_ci_low": 0.89, "accuracy_ci_high": 0.93, "accuracy_above_chance": 0.88,
    "perplexity": 2.2, "agreement": 0.98, "rouge_l": 0.7, "parameters": 134_515_008, "bytes": 98_362_432,
}  # fmt: skip
GOALS = {
    "accuracy_ratio": 0.9, "accuracy_ratio_above_chance": 0.87, "perplexity": 21.0, "compression_ratio": 0.2499,
    "latency_gain": 3.1, "met": 3,
}  # fmt: skip
METRICS = {
    "teacher": ROW,
    "init": ROW | {"accuracy": 0.25, "perplexity": 251_234.5},
    "sft": ROW | {"perplexity": 25.0},
    "distilled": ROW | {"perplexity": 21.0},
    "goals": GOALS,
}


def test_the_table_has_a_row_a_model_with_its_interval():
    lines = report.results(METRICS).splitlines()
    assert [line.split("|")[1].strip() for line in lines[2:]] == ["teacher", "init", "sft", "distilled"]
    assert "0.912 [0.890, 0.930]" in lines[2]
    assert "134.5 M" in lines[2]
    assert "98 MB" in lines[2]
    assert "251,000" in lines[3]
    assert len({line.count("|") for line in lines}) == 1


def test_a_goal_that_is_missed_says_so():
    lines = report.goals(METRICS).splitlines()
    assert "met" in lines[2]
    assert "not met" not in lines[2]
    assert "**not met**" in next(line for line in lines if "perplexity" in line)


@pytest.mark.parametrize(("value", "text"), [(0.91234, "0.912"), (2.0, "2"), (15.26, "15.3"), (251234.5, "251,000")])
def test_numbers_have_three_digits(value, text):
    assert report.number(value) == text


def test_a_models_text_is_shown_and_never_becomes_markup():
    text = report.quoted("<script>alert(1)</script> | *bold* [link](x)\n# head `code`")
    for mark in ("<script>", "|", "*", "[", "`", "\n", " # "):
        assert mark not in text
    assert "<br>" in text


def test_the_table_replaces_what_stands_between_its_marks_and_nothing_else():
    text = f"a\n{table.BEGIN}\nold\n{table.END}\nb\n"
    once = table.between(text, "new", "x")
    assert once == f"a\n{table.BEGIN}\nnew\n{table.END}\nb\n"
    assert table.between(once, "new", "x") == once
    with pytest.raises(UserError, match="has no lines"):
        table.between("nothing here", "new", "README.md")


def test_loss_curves_of_all_variants_are_one_table():
    log = pd.DataFrame({"step": [1], "epoch": [0.5], "split": ["train"], "loss": [2.0]})
    found = plot.loss_table({"sft": log, "distilled": log})
    assert list(found.columns) == ["step", "variant", "split", "epoch", "loss"]
    assert found["variant"].tolist() == ["sft", "distilled"]


def test_the_readme_shows_the_committed_numbers():
    root = Path(__file__).parent.parent
    metrics = json.loads((root / "metrics/metrics.json").read_text())
    readme = (root / "README.md").read_text()
    assert report.results(metrics) in readme
    assert report.goals(metrics) in readme
