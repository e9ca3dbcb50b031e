"""The tables behind the figures."""

import pytest
from plotting import METRICS, ROW

from distill.reporting.figure_data import histogram, score_rows
from distill.reporting.score_tables import MODELS


def estimate(value: float, low: float, high: float) -> dict[str, float]:
    return {"value": value, "ci_low": low, "ci_high": high}


def test_ratios_are_to_the_teachers_point_estimate():
    models = {name: {"accuracy": estimate(0.8, 0.7, 0.9)} for name in MODELS}
    models["teacher"]["accuracy"] = estimate(0.91234, 0.9, 0.92)
    metrics = METRICS | {"distilled": ROW | {"parameters": 33_628_752}}
    rows = {(row["model"], row["score"]): row for row in score_rows(metrics, models)}
    ratio = rows["distilled", "accuracy_ratio"]
    assert ratio["value"] == pytest.approx(0.8 / 0.91234, rel=1e-5)
    assert (ratio["ci_low"], ratio["ci_high"]) == pytest.approx((0.7 / 0.91234, 0.9 / 0.91234), rel=1e-5)
    assert rows["distilled", "compression_ratio"]["value"] == 0.25
    assert rows["teacher", "accuracy_ratio"]["value"] == 1


def test_histogram_bins_are_round_and_hold_every_value_once():
    words = histogram("words", [3, 3, 4, 7], 1)
    assert [(row["low"], row["high"], row["samples"]) for row in words] == [
        (3, 4, 2), (4, 5, 1), (5, 6, 0), (6, 7, 0), (7, 8, 1)
    ]  # fmt: skip
    weights = histogram("weight", [0.3, 0.35, 1.0, 2.6], 0.05)
    assert [row["low"] for row in weights[:2]] == [0.3, 0.4]
    assert weights[0]["samples"] == 2
    assert sum(row["samples"] for row in weights) == 4
    assert histogram("weight", [1.0, 1.0], 0.05) == [{"quantity": "weight", "low": 1.0, "high": 1.05, "samples": 2}]


@pytest.mark.parametrize("count", [1, 7, 39, 40, 41, 200])
def test_a_histogram_is_not_finer_than_asked_and_loses_no_value(count):
    values = [3 + index * 0.7 for index in range(count)]
    rows = histogram("weight", values, 0.05)
    assert len(rows) <= 41
    assert sum(row["samples"] for row in rows) == count
    assert all(row["high"] - row["low"] >= 0.05 - 1e-9 for row in rows)
