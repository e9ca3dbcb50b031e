"""The main table, the goals and the comparison with fine-tuning."""

import json
from pathlib import Path

import pytest
from plotting import METRICS

from distill.cards import markdown
from distill.evaluation.goals import GOALS
from distill.reporting import main_table

ROOT = Path(__file__).parents[2]
GOAL = {goal.name: goal for goal in GOALS}


def estimate(value: float, low: float, high: float) -> dict[str, float]:
    return {"value": value, "ci_low": low, "ci_high": high}


def test_each_model_has_a_row_with_its_interval():
    lines = markdown.table(main_table.results(METRICS)).splitlines()
    assert [line.split("|")[1].strip() for line in lines[2:]] == ["teacher", "init", "sft", "distilled"]
    assert lines[2] == "| teacher | 134.5 M | 98 MB | 0.912 [0.890, 0.930] | 2.2 | 0.980 | 0.700 |"
    assert "251,000" in lines[3]
    assert len({line.count("|") for line in lines}) == 1


def test_a_missed_goal_is_marked():
    status = [line.split("|")[4].strip() for line in markdown.table(main_table.goals(METRICS)).splitlines()[2:]]
    assert status == ["met", "**not met**", "met", "met"]


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
def test_digits_show_on_which_side_of_its_goal_a_value_is(goal, value, text):
    assert main_table.format_goal(GOAL[goal], value) == text


def test_the_comparison_names_the_better_model_and_overlaps():
    sft = {
        "accuracy": estimate(0.80, 0.75, 0.85), "perplexity": estimate(9.9, 8.5, 11.5),
        "top1_agreement": estimate(0.64, 0.62, 0.66), "rouge_l": estimate(0.5, 0.4, 0.6),
    }  # fmt: skip
    distilled = {
        "accuracy": estimate(0.77, 0.72, 0.81), "perplexity": estimate(6.0, 5.5, 6.6),
        "top1_agreement": estimate(0.70, 0.68, 0.72), "rouge_l": estimate(0.5, 0.4, 0.6),
    }  # fmt: skip
    lines = markdown.table(main_table.comparison({"sft": sft, "distilled": distilled})).splitlines()[2:]
    assert lines == [
        "| accuracy | 0.8 | 0.77 | sft | overlap |",
        "| perplexity | 9.9 | 6 | distilled | disjoint |",
        "| top-1 agreement | 0.64 | 0.7 | distilled | disjoint |",
        "| ROUGE-L | 0.5 | 0.5 | neither | overlap |",
    ]


def test_the_number_of_measured_responses_is_stated():
    text = main_table.measured_on({"items": 88, "held_out": 88, "generations": 50})
    assert text.startswith("Measured on all 88 held-out responses; ")


def test_the_readme_shows_the_committed_numbers():
    metrics = json.loads((ROOT / "metrics/metrics.json").read_text())
    readme = (ROOT / "README.md").read_text()
    assert markdown.table(main_table.results(metrics)) in readme
    assert markdown.table(main_table.goals(metrics)) in readme
