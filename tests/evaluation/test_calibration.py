"""Expected calibration error and response lengths."""

import numpy as np
import pandas as pd
import pytest

from distill.evaluation.calibration import calibration, expected_calibration_error, response_lengths


def test_the_calibration_error_weights_the_gap_of_each_bin_by_its_size():
    confidence = np.array([0.95, 0.95, 0.95, 0.95, 0.3, 0.35])
    correct = np.array([1.0, 1.0, 1.0, 0.0, 0.0, 1.0])
    # accuracy of the three bins: 0.75 in (0.9, 1], 0 in (0.2, 0.3], 1 in (0.3, 0.4]
    expected = 4 / 6 * 0.2 + 1 / 6 * 0.3 + 1 / 6 * 0.65
    assert expected_calibration_error(confidence, correct) == pytest.approx(expected)
    assert expected_calibration_error(np.ones(3), np.ones(3)) == 0
    summary = calibration(pd.DataFrame({"confidence": confidence, "correct": correct}))
    assert summary["mean_confidence"] - summary["accuracy"] == pytest.approx(4.45 / 6 - 4 / 6)


def test_lengths_are_those_of_items_with_a_generated_text():
    items = pd.DataFrame(
        {"generated_length": [4, 8, np.nan], "reference_length": [8, 8, np.nan], "ended": [1.0, 0.0, np.nan]}
    )
    assert response_lengths(items) == {
        "generated_tokens": 6.0, "reference_tokens": 8.0, "ratio": 0.75, "ended": 0.5
    }  # fmt: skip
