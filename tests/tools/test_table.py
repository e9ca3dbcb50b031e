import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from distill.cards import markdown
from distill.cards.document import Table, number
from distill.core.errors import UserError
from distill.evaluation.goals import GOALS
from distill.reporting import report, score_tables
from tools import table

ROOT = Path(__file__).parents[2]
ROW = {
    "accuracy": 0.91234, "accuracy_ci_low": 0.89, "accuracy_ci_high": 0.93, "accuracy_above_chance": 0.88,
    "perplexity": 2.2, "top1_agreement": 0.98, "rouge_l": 0.7, "parameters": 134_515_008, "bytes": 98_362_432,
}  # fmt: skip
VALUES = {
    "accuracy_ratio": 0.9, "accuracy_ratio_above_chance": 0.87, "perplexity": 21.0, "compression_ratio": 0.2499,
    "latency_gain": 3.1, "met": 3,
}  # fmt: skip
METRICS = {
    "teacher": ROW,
    "init": ROW | {"accuracy": 0.25, "perplexity": 251_234.5},
    "sft": ROW | {"perplexity": 25.0},
    "distilled": ROW | {"perplexity": 21.0},
    "goals": VALUES,
}
GOAL = {goal.name: goal for goal in GOALS}


def estimate(value: float, low: float, high: float) -> dict[str, float]:
    return {"value": value, "ci_low": low, "ci_high": high}


def command(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    line = [sys.executable, "-m", "tools.table", *arguments]
    return subprocess.run(line, cwd=folder, env=environment, capture_output=True, text=True, check=False)


def write_metrics(folder: Path, value: object) -> None:
    (folder / "metrics").mkdir(exist_ok=True)
    (folder / "metrics/metrics.json").write_text(json.dumps(value))


def test_the_table_has_a_row_a_model_with_its_interval():
    lines = markdown.table(report.results(METRICS)).splitlines()
    assert [line.split("|")[1].strip() for line in lines[2:]] == ["teacher", "init", "sft", "distilled"]
    assert lines[2] == "| teacher | 134.5 M | 98 MB | 0.912 [0.890, 0.930] | 2.2 | 0.980 | 0.700 |"
    assert "251,000" in lines[3]
    assert len({line.count("|") for line in lines}) == 1


def test_a_goal_that_is_missed_says_so():
    verdicts = [line.split("|")[4].strip() for line in markdown.table(report.goals(METRICS)).splitlines()[2:]]
    assert verdicts == ["met", "**not met**", "met", "met"]


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.91234, "0.912"), (2.0, "2"), (15.26, "15.3"), (251234.5, "251,000"), (999.6, "1,000"), (-0.25, "-0.25")],
)
def test_numbers_have_three_digits(value, text):
    assert number(value) == text


@pytest.mark.parametrize(
    ("goal", "value", "text"),
    [
        ("perplexity", 20.012345, "20.01"),
        ("perplexity", 20.0, "20"),
        ("compression_ratio", 0.25004, "0.25004"),
        ("accuracy_ratio", 0.8503, "0.8503"),
        ("accuracy_ratio", 0.85, "0.85"),
        ("latency_gain", 4.88, "4.88"),
        ("perplexity", 2301.39, "2,300"),
    ],
)
def test_a_goals_value_never_looks_like_the_other_side_of_its_threshold(goal, value, text):
    assert report.decided(GOAL[goal], value) == text


def test_a_models_text_is_shown_and_never_becomes_markup():
    shown = markdown.quoted("<b>1</b> | *x* [y](z)\n# `q` $a$ \\n ~~s~~ a_b")
    assert shown == (
        "&lt;b&gt;1&lt;/b&gt; &#124; &#42;x&#42; &#91;y&#93;(z)<br>"
        "&#35; &#96;q&#96; &#36;a&#36; &#92;n &#126;&#126;s&#126;&#126; a&#95;b"
    )
    assert markdown.quoted("https://a.b @c") == "https&#58;//a.b &#64;c"
    assert markdown.quoted("&amp;") == "&amp;amp;"


def test_characters_that_hide_or_reorder_text_are_shown():
    assert markdown.quoted("a\x00b\x1b\u202ec\td\ud800") == "a\ufffdb\ufffd\ufffdc d\ufffd"
    assert markdown.quoted("é 漢 👩\u200d🔬") == "é 漢 👩\u200d🔬"


def test_an_empty_answer_is_named_and_a_long_one_is_cut():
    assert markdown.quoted(" \n") == "(nothing)"
    assert markdown.quoted("x" * 600) == "x" * 600
    assert markdown.quoted("x" * 601) == "x" * 600 + " ..."


def test_prose_is_to_the_left_and_numbers_to_the_right():
    assert (
        markdown.table(Table(["a", "b", "c"], [["1", "2", "3"]], "lrl"))
        == "| a | b | c |\n| --- | ---: | --- |\n| 1 | 2 | 3 |"
    )
    assert markdown.table(Table(["a", "b"], [])).splitlines()[1] == "| --- | ---: |"


def test_what_distillation_brought_says_who_is_ahead_and_whether_intervals_overlap():
    sft = {
        "accuracy": estimate(0.80, 0.75, 0.85), "perplexity": estimate(9.9, 8.5, 11.5),
        "top1_agreement": estimate(0.64, 0.62, 0.66), "rouge_l": estimate(0.5, 0.4, 0.6),
    }  # fmt: skip
    distilled = {
        "accuracy": estimate(0.77, 0.72, 0.81), "perplexity": estimate(6.0, 5.5, 6.6),
        "top1_agreement": estimate(0.70, 0.68, 0.72), "rouge_l": estimate(0.5, 0.4, 0.6),
    }  # fmt: skip
    lines = markdown.table(report.gain({"sft": sft, "distilled": distilled})).splitlines()[2:]
    assert lines == [
        "| accuracy | 0.8 | 0.77 | sft | overlap |",
        "| perplexity | 9.9 | 6 | distilled | apart |",
        "| top-1 agreement | 0.64 | 0.7 | distilled | apart |",
        "| ROUGE-L | 0.5 | 0.5 | neither | overlap |",
    ]


def test_ratios_are_to_the_teacher_and_of_its_point_estimate():
    models = {name: {"accuracy": estimate(0.8, 0.7, 0.9)} for name in score_tables.MODELS}
    models["teacher"]["accuracy"] = estimate(0.91234, 0.9, 0.92)
    metrics = METRICS | {"distilled": ROW | {"parameters": 33_628_752}}
    found = {(row["model"], row["score"]): row for row in report.score_rows(metrics, models)}
    ratio = found["distilled", "accuracy_ratio"]
    assert ratio["value"] == pytest.approx(0.8 / 0.91234, rel=1e-5)
    assert (ratio["ci_low"], ratio["ci_high"]) == pytest.approx((0.7 / 0.91234, 0.9 / 0.91234), rel=1e-5)
    assert found["distilled", "compression_ratio"]["value"] == 0.25
    assert found["teacher", "accuracy_ratio"]["value"] == 1


def test_histogram_bins_are_round_and_hold_every_value_once():
    words = report.histogram("words", [3, 3, 4, 7], 1)
    assert [(row["low"], row["high"], row["samples"]) for row in words] == [
        (3, 4, 2), (4, 5, 1), (5, 6, 0), (6, 7, 0), (7, 8, 1)
    ]  # fmt: skip
    weights = report.histogram("weight", [0.3, 0.35, 1.0, 2.6], 0.05)
    assert [row["low"] for row in weights[:2]] == [0.3, 0.4]
    assert weights[0]["samples"] == 2
    assert sum(row["samples"] for row in weights) == 4
    assert [row["samples"] for row in report.histogram("weight", [1.0, 1.0], 0.05)] == [2]


@pytest.mark.parametrize("bad", [None, "0.9", True, float("nan"), [1]])
def test_a_number_that_is_missing_or_none_names_its_place_and_stage(bad):
    with pytest.raises(UserError, match=r"x\.json must have a number at a\.b, .* Stage evaluate writes"):
        report.require({"a": {"b": bad}}, "x.json", "evaluate", ["a.b"])
    report.require({"a": {"b": 1}, "m": [{"c": "t"}]}, "x.json", "evaluate", ["a.b"], ["m.-1.c"])
    with pytest.raises(UserError, match="text at"):
        report.require({"m": []}, "x.json", "evaluate", texts=["m.-1.c"])


def test_the_table_replaces_what_stands_between_its_marks_and_nothing_else():
    text = f"a\n{table.BEGIN}\nold\n{table.END}\nb\n"
    once = table.between(text, "new", "x")
    assert once == f"a\n{table.BEGIN}\nnew\n{table.END}\nb\n"
    assert table.between(once, "new", "x") == once
    for wrong in ("nothing here", f"{table.END}\n{table.BEGIN}"):
        with pytest.raises(UserError, match="has no lines"):
            table.between(wrong, "new", "README.md")


def test_the_command_prints_the_table_or_writes_it_into_a_file(tmp_path):
    write_metrics(tmp_path, METRICS)
    block = f"{markdown.table(report.results(METRICS))}\n\n{markdown.table(report.goals(METRICS))}"
    assert command(tmp_path).stdout == f"{block}\n"
    readme = tmp_path / "README.md"
    readme.write_text(f"# é\n{table.BEGIN}\n{table.END}\nend\n", encoding="utf-8")
    assert command(tmp_path, "--write", "README.md").returncode == 0
    assert readme.read_text(encoding="utf-8") == f"# é\n{table.BEGIN}\n{block}\n{table.END}\nend\n"


@pytest.mark.parametrize(
    ("metrics", "arguments", "words"),
    [
        (None, (), "it comes from stage evaluate"),
        ({"teacher": {}}, (), "number at teacher.accuracy"),
        ([], (), "number at teacher.accuracy"),
        (METRICS, ("--write", "nowhere.md"), "nowhere.md is missing"),
    ],
)
def test_the_commands_mistakes_end_in_one_message(tmp_path, metrics, arguments, words):
    if metrics is not None:
        write_metrics(tmp_path, metrics)
    done = command(tmp_path, *arguments)
    assert done.returncode == 1
    assert words in done.stderr
    assert "Traceback" not in done.stderr


def test_the_readme_shows_the_committed_numbers():
    metrics = json.loads((ROOT / "metrics/metrics.json").read_text())
    readme = (ROOT / "README.md").read_text()
    assert markdown.table(report.results(metrics)) in readme
    assert markdown.table(report.goals(metrics)) in readme
