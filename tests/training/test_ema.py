from types import SimpleNamespace

import pytest
import tiny
import torch

from distill.training.ema import EMACallback


def test_the_average_is_exponential_and_resumes(tmp_path):
    model = tiny.model(50, layers=1)
    weight, args, path = model.model.norm.weight, SimpleNamespace(output_dir=str(tmp_path)), tmp_path / "checkpoint-2"
    path.mkdir()
    average, by_hand = EMACallback(model, 0.75), None
    for step, value in enumerate([1.0, 3.0, 8.0], start=1):
        torch.nn.init.constant_(weight, value)
        average.on_step_end(args, None, None, model=model)
        by_hand = value if by_hand is None else 0.75 * by_hand + 0.25 * value
        if step == 2:
            average.on_save(args, SimpleNamespace(global_step=2), None)
    assert average.model.model.norm.weight.tolist() == pytest.approx([by_hand] * 32)
    resumed = EMACallback(model, 0.75)
    resumed.on_train_begin(args, SimpleNamespace(global_step=2), None)
    resumed.on_step_end(args, None, None, model=model)
    for continued, restarted in zip(average.model.parameters(), resumed.model.parameters(), strict=True):
        assert torch.equal(continued, restarted)
