"""Stored targets with flipped bits, cut off or without some of their files: refused, never read as others."""

import json
import random
import shutil
from pathlib import Path

import pytest
import torch

from distill.core.errors import UserError
from distill.targets import statistics, store
from distill.targets.statistics import ResponseStatistics
from distill.targets.stored import draw, top_k

FLIPS = 150  # of each file
SAMPLES = ("ants", "jazz", "north")
STATISTICS = {name: ResponseStatistics([0.5, 0.25], [1.0, 2.0], -0.75) for name in SAMPLES}
KINDS = {"top_k": 3, "sampled": 5}


def source(kind: str) -> store.Source:
    """A source of targets of this kind."""
    return store.Source("t", "m", None, None, "tok", "tmpl", "data", "float32", kind, KINDS[kind])


def written(folder: Path, kind: str) -> Path:
    """A folder of targets of three responses, their expected counts and statistics."""
    folder.mkdir()
    torch.manual_seed(0)
    logits = {name: torch.randn(4, 11) for name in SAMPLES}
    rows = {name: top_k(value, 3) if kind == "top_k" else draw(value, 5, 0) for name, value in logits.items()}
    store.write_targets(folder, source(kind), rows.items(), torch.arange(11.0))
    statistics.write_statistics(folder, SAMPLES, STATISTICS, None)
    return folder


def read(folder: Path, kind: str) -> list:
    """All that can be read of a folder, in types that compare."""
    rows = [
        (name, {key: value.tolist() for key, value in vars(stored).items()})
        for name, stored in store.read_targets(folder, source(kind))
    ]
    return [rows, store.read_expected_counts(folder).tolist(), statistics.read_statistics(folder, SAMPLES)]


def refusal_or_equal(folder: Path, kind: str, whole: list) -> str:
    """The message of the refusal; empty where exactly what was written is read."""
    try:
        assert read(folder, kind) == whole, "other targets were read"
    except UserError as error:
        return str(error)
    return ""


@pytest.mark.parametrize("kind", KINDS)
def test_no_flipped_bit_gives_other_targets(tmp_path, kind):
    folder = written(tmp_path / "targets", kind)
    whole, draws = read(folder, kind), random.Random(0)
    for path in sorted(folder.iterdir()):
        content, refused = path.read_bytes(), 0
        for _ in range(FLIPS):
            changed = bytearray(content)
            changed[draws.randrange(len(changed))] ^= 1 << draws.randrange(8)
            path.write_bytes(changed)
            message = refusal_or_equal(folder, kind, whole)
            refused += "dvc repro" in message
            assert not message or "dvc repro" in message, message
        assert refused >= FLIPS - 2, path.name
        path.write_bytes(content)
    assert read(folder, kind) == whole


@pytest.mark.parametrize("kind", KINDS)
def test_cut_and_missing_files_are_refused(tmp_path, kind):
    folder = written(tmp_path / "targets", kind)
    whole = read(folder, kind)
    for path in sorted(folder.iterdir()):
        content = path.read_bytes()
        for length in range(0, len(content), max(len(content) // 40, 1)):
            path.write_bytes(content[:length])
            assert path.name in refusal_or_equal(folder, kind, whole)
        path.write_bytes(content + b"\0")
        assert path.name in refusal_or_equal(folder, kind, whole)
        path.unlink()
        assert path.name in refusal_or_equal(folder, kind, whole)
        path.write_bytes(content)


@pytest.mark.parametrize(
    "content", ["", "[]", "null", "3", "{}", '"\\ud800"', '{"sha256": NaN}', "[" * 100_000, "\x00"]
)
def test_a_manifest_of_other_contents_is_refused(tmp_path, content):
    folder = written(tmp_path / "targets", "top_k")
    (folder / store.MANIFEST).write_text(content)
    with pytest.raises(UserError, match=r"manifest\.json"):
        read(folder, "top_k")


def test_an_edited_manifest_is_refused(tmp_path):
    """Each value of the manifest replaced, by someone who does not know of its hash."""
    folder = written(tmp_path / "targets", "top_k")
    path = folder / store.MANIFEST
    content = json.loads(path.read_text())
    for key in ("source", "shards", "samples", "expected_counts"):
        path.write_text(json.dumps(content | {key: {}}))
        with pytest.raises(UserError, match="its sha256 differs"):
            read(folder, "top_k")


def test_statistics_of_other_rows_are_refused(tmp_path):
    folder = written(tmp_path / "targets", "top_k")
    with pytest.raises(UserError, match="is of other rows"):
        statistics.read_statistics(folder, ["ants", "north", "jazz"])


def test_targets_that_lack_a_folder_name_their_stage(tmp_path):
    folder = written(tmp_path / "targets", "top_k")
    shutil.rmtree(folder)
    with pytest.raises(UserError, match="stage targets"):
        read(folder, "top_k")
