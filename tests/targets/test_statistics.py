import pytest
import torch
from safetensors.torch import load_file, save_file

from distill.core.errors import UserError
from distill.targets.statistics import FILE, ResponseStatistics, read_statistics, write_statistics

STATISTICS = {
    "ants": ResponseStatistics([0.5, 1.5, 0.25], [1.0, 2.0, 0.125], -0.75),
    "jazz": ResponseStatistics([2.0], [0.5], -3.0),
}


def test_statistics_are_read_as_written(tmp_path):
    write_statistics(tmp_path, ["jazz", "ants"], STATISTICS, None)
    assert read_statistics(tmp_path, ["jazz", "ants"]) == STATISTICS


def test_log_probs_without_the_prompt_are_kept(tmp_path):
    write_statistics(tmp_path, ["ants", "jazz"], STATISTICS, {"jazz": -4.5, "ants": -2.0})
    read = read_statistics(tmp_path, ["ants", "jazz"])
    assert [statistics.without_prompt for statistics in read.values()] == [-2.0, -4.5]
    assert [statistics.with_prompt for statistics in read.values()] == [-0.75, -3.0]


def test_the_same_statistics_give_the_same_bytes(tmp_path):
    for name in ("first", "second"):
        (tmp_path / name).mkdir()
        write_statistics(tmp_path / name, list(STATISTICS), STATISTICS, None)
    assert (tmp_path / "first" / FILE).read_bytes() == (tmp_path / "second" / FILE).read_bytes()


def test_statistics_of_another_number_of_rows_are_refused(tmp_path):
    write_statistics(tmp_path, list(STATISTICS), STATISTICS, None)
    with pytest.raises(UserError, match=r"is of 2 rows, but there are 3\. Run `dvc repro targets`"):
        read_statistics(tmp_path, ["ants", "jazz", "north"])


@pytest.mark.parametrize("content", [None, b"", b"no safetensors"])
def test_a_missing_or_broken_file_is_refused(tmp_path, content):
    if content is not None:
        (tmp_path / FILE).write_bytes(content)
    with pytest.raises(UserError, match=r"statistics\.safetensors cannot be read .* Run `dvc pull`"):
        read_statistics(tmp_path, list(STATISTICS))


def test_a_file_without_lengths_is_refused(tmp_path):
    write_statistics(tmp_path, list(STATISTICS), STATISTICS, None)
    tensors = load_file(tmp_path / FILE)
    del tensors["lengths"]
    save_file(tensors | {"other": torch.zeros(1)}, tmp_path / FILE)
    with pytest.raises(UserError, match="cannot be read"):
        read_statistics(tmp_path, list(STATISTICS))
