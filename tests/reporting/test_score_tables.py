"""Tables of every score, interval and statistic, and the significance of a difference."""

from distill.cards.document import Data
from distill.reporting import score_tables
from distill.reporting.score_tables import significance


def test_significance_depends_on_the_direction_of_a_metric():
    assert significance(0.05, 0.2, more_is_better=True) == "better"
    assert significance(0.05, 0.2, more_is_better=False) == "worse"
    assert significance(-0.2, -0.05, more_is_better=False) == "better"
    assert significance(-0.01, 0.2, more_is_better=True) == "within noise"
    assert significance(0.0, 0.0, more_is_better=True) == "within noise"


def test_statistics_show_every_other_value_of_evaluate_json():
    models = {name: {"accuracy": dict.fromkeys(score_tables.ESTIMATE, 1.0)} for name in score_tables.MODELS}
    models["sft"] |= {"a_b": {"c": 2, "d": {"e": None}}, "rows": [{"x": 1, "y": "z"}, {"x": 3}], "flag": True}
    scores = {"items": 400, "models": models, "lengths": {"teacher": {"mean": 15.25}}, "size": {"bytes": 0.5}, "no": {}}
    single, rows, others = score_tables.statistics(scores)
    assert single.rows == [
        ["lengths, mean", "15.2", "-", "-", "-"],
        ["a b, c", "-", "-", "2", "-"],
        ["a b, d, e", "-", "-", "-", "-"],
        ["flag", "-", "-", "true", "-"],
    ]
    assert [list(rows.header), *rows.rows] == [["rows", "x", "y"], ["sft", "1", "z"], ["sft", "3", "-"]]
    assert isinstance(rows.rows[0][2], Data)
    assert others.rows == [["items", "400"], ["size, bytes", "0.5"]]
    assert score_tables.statistics({"models": {name: {} for name in score_tables.MODELS}}) == []


def test_only_several_training_seeds_have_a_table():
    row = {"seeds": 2, "mean": 0.5, "sd": 0.1, "ci_low": 0.3, "ci_high": 0.7}
    scores = {"models": {name: {} for name in score_tables.MODELS}, "seeds": {"sft": {"accuracy": row}}}
    (table,) = score_tables.statistics(scores)
    assert [list(line) for line in table.rows] == [["sft", "accuracy", "0.5", "0.1", "0.3", "0.7"]]
    scores["seeds"]["sft"]["accuracy"] = row | {"seeds": 1, "sd": None}
    assert score_tables.statistics(scores) == []
