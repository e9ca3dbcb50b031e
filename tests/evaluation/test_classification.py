"""Metrics of a classifier."""

import pandas as pd
import pytest

from distill.evaluation.classification import estimate_classification


def f1(tp: int, right: int, picked: int) -> float:
    return 2 * tp / (right + picked)


def test_metrics_are_those_of_their_definitions():
    right, picked = list("aaabbc"), list("aabbbd")
    items = pd.DataFrame({"label": right, "picked": picked, "confidence": [0.95] * 6})
    items["correct"] = (items["label"] == items["picked"]).astype(float)
    items["top1_tokens"] = [1, 1, 1, 0, 0, 0]
    scores = estimate_classification([items], 200, 0)
    # `c` is never picked and `d` never right: both count with 0
    assert scores["macro_f1"]["value"] == pytest.approx((f1(2, 3, 2) + f1(2, 2, 3) + 0 + 0) / 4)
    assert scores["accuracy"]["value"] == pytest.approx(4 / 6)
    assert scores["ece"]["value"] == pytest.approx(0.95 - 4 / 6)
    assert scores["teacher_agreement"]["value"] == 0.5
    for score in scores.values():
        assert score["ci_low"] <= score["value"] <= score["ci_high"]
        assert score["ci_low"] < score["ci_high"]
