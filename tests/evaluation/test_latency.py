"""Latency at batch 1."""

import pytest
import tiny
import torch

from distill.evaluation import latency
from distill.params.evaluate import Latency


def test_models_are_timed_in_turn_after_warming_up(model, monkeypatch):
    timed = []
    monkeypatch.setattr(
        latency,
        "time_response",
        lambda model, prompt, new: timed.append(model) or latency.Timing(0.1, 0.9, new - 1),
    )
    settings = Latency(prompt_tokens=4, new_tokens=10, num_warmup_runs=1, num_runs=2)
    timings = latency.time_models({"a": model, "b": tiny.model(30)}, settings)
    assert [len(runs) for runs in timings.values()] == [2, 2]
    assert timed[0::2] == [model] * 3
    assert model not in timed[1::2]
    summary = latency.summarize_timings(timings["a"])
    assert summary["time_to_first_token_ms"]["median"] == pytest.approx(100)
    assert summary["decode_tokens_per_s"]["median"] == pytest.approx(10)
    assert latency.median_seconds(timings["a"]) == pytest.approx(1.0)


def test_a_timed_response_has_the_length_that_was_set(model):
    timing = latency.time_response(model, torch.tensor([[1, 5, 6]]), new_tokens=4)
    assert timing.rest_tokens == 3
    assert timing.first > 0
    assert timing.rest > 0
