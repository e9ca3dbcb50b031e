"""Metrics as ratios of sums over items."""

import json
import math

import numpy as np
import pandas as pd
import pytest

from distill.evaluation.metrics import chance_accuracy, estimate_metrics


def test_items_without_a_generated_text_keep_their_other_metrics():
    items = pd.DataFrame({
        "correct": [1.0, 0.0], "correct_norm": [1.0, 1.0], "nll": [3.0, 1.0], "tokens": [2, 2], "bytes": [8, 8],
        "top1_tokens": [1, 2], "rouge_l": [0.5, np.nan], "matching_tokens": [1, np.nan], "longer_length": [4, np.nan],
    })  # fmt: skip
    scores = estimate_metrics([items], 100, 0, chance_accuracy(None))
    assert scores["rouge_l"].value == 0.5
    assert scores["token_match"].value == 0.25
    assert scores["top1_agreement"].value == 0.75
    assert scores["perplexity"].value == pytest.approx(math.e)
    assert scores["bits_per_byte"].value == pytest.approx(4 / math.log(2) / 16)
    assert json.dumps({key: value.value for key, value in scores.items()})


def test_chance_is_one_in_the_number_of_choices():
    assert chance_accuracy(None) == 0.25
    assert chance_accuracy(["good", "bad"]) == 0.5
