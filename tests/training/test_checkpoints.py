from distill.training import checkpoints


def test_an_incomplete_checkpoint_is_removed(tmp_path):
    for step in (2, 10, 20):
        (tmp_path / f"checkpoint-{step}").mkdir()
    for step in (2, 10):
        (tmp_path / f"checkpoint-{step}" / checkpoints.COMPLETE).touch()
    assert checkpoints.last_complete_checkpoint(tmp_path) == tmp_path / "checkpoint-10"
    assert not (tmp_path / "checkpoint-20").exists()
    assert checkpoints.last_complete_checkpoint(tmp_path / "none") is None
