"""The whole pipeline with a student whose tokenizer is not the teacher's."""

import json

import forks
import pytest
import tiny
from other_tokenizers import OTHER


@pytest.mark.slow
def test_a_pretrained_student_of_another_tokenizer_is_distilled_from_stored_targets(tmp_path):
    folder = tiny.repository(
        tmp_path, train__student={"source": "pretrained", "model": "other", "revision": None, "adapter": None}
    )
    OTHER.save_pretrained(folder / "other")
    tiny.model(len(OTHER), layers=2, spread=0.05).save_pretrained(folder / "other")
    for stage in ("generate", "clean", "weight", "train init", "train distilled 7"):
        forks.stage(folder, stage)
    names = ("init", "distilled-7")
    before, after = (json.loads((folder / f"metrics/train/{name}.json").read_text()) for name in names)
    assert after["loss"] == "forward_kl"
    assert after["validation_loss"] < before["validation_loss"]
