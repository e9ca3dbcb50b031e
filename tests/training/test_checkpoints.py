import json

import pytest

from distill.training import checkpoints


@pytest.fixture
def folder(tmp_path):
    """Three sealed checkpoints."""
    for step in (2, 10, 20):
        path = tmp_path / f"checkpoint-{step}"
        path.mkdir()
        (path / "model.safetensors").write_bytes(b"model of step %d" % step)
        (path / "optimizer.pt").write_bytes(b"moments")
        checkpoints.seal(path)
    return tmp_path


def test_the_newest_checkpoint_is_the_one_of_most_steps(folder):
    assert checkpoints.last_whole_checkpoint(folder) == folder / "checkpoint-20"
    assert checkpoints.last_whole_checkpoint(folder / "none") is None
    sealed = json.loads((folder / "checkpoint-2" / checkpoints.COMPLETE).read_text())
    assert list(sealed) == ["model.safetensors", "optimizer.pt"]


def test_a_half_written_checkpoint_is_removed(folder, capsys):
    (folder / "checkpoint-20" / checkpoints.COMPLETE).unlink()
    assert checkpoints.last_whole_checkpoint(folder) == folder / "checkpoint-10"
    assert not (folder / "checkpoint-20").exists()
    assert capsys.readouterr().out == "checkpoint-20 is half written: removed\n"


@pytest.mark.parametrize("name", ["model.safetensors", "optimizer.pt", checkpoints.COMPLETE])
@pytest.mark.parametrize("content", [None, b"", b"other"])
def test_a_damaged_checkpoint_gives_way_to_an_older_one(folder, capsys, name, content):
    path = folder / "checkpoint-20" / name
    path.unlink() if content is None else path.write_bytes(content)
    assert checkpoints.last_whole_checkpoint(folder) == folder / "checkpoint-10"
    assert not (folder / "checkpoint-20").exists()
    assert capsys.readouterr().out.startswith("checkpoint-20 is ")


def test_without_a_whole_checkpoint_there_is_none(folder, capsys):
    for step in (2, 10, 20):
        (folder / f"checkpoint-{step}" / "other").touch()
    assert checkpoints.last_whole_checkpoint(folder) is None
    assert len(capsys.readouterr().out.splitlines()) == 3
    assert list(folder.iterdir()) == []


def test_what_is_no_checkpoint_is_left_alone(folder):
    for name in ("checkpoint-best", "checkpoint-", "trained"):
        (folder / name).mkdir()
    (folder / "checkpoint-30").write_text("a file")
    assert checkpoints.last_whole_checkpoint(folder) == folder / "checkpoint-20"
    assert sorted(path.name for path in folder.iterdir() if "0" not in path.name) == [
        "checkpoint-", "checkpoint-2", "checkpoint-best", "trained",
    ]  # fmt: skip
