"""Atomic files, JSON rows and the end of a command."""

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest

from distill.core import files
from distill.core.errors import UserError, run_main

ROOT = Path(__file__).parents[2]


def test_rows_round_trip_one_a_line_in_utf8(tmp_path):
    path = tmp_path / "deep" / "rows.jsonl"
    rows = [{"id": "a", "text": "naïve\n😀\u2028"}, {"id": "b", "text": ""}]
    assert files.write_rows(path, rows) == 2
    assert path.read_bytes().count(b"\n") == 2
    assert list(files.read_rows(path, "a test")) == rows


def test_a_failed_write_leaves_the_old_file_alone(tmp_path):
    path = tmp_path / "rows.jsonl"
    files.write_rows(path, [{"id": "old"}])

    def rows():
        yield {"id": "new"}
        raise RuntimeError("killed")

    with pytest.raises(RuntimeError, match="killed"):
        files.write_rows(path, rows())
    assert list(files.read_rows(path, "a test")) == [{"id": "old"}]
    assert [entry.name for entry in tmp_path.iterdir()] == ["rows.jsonl"]


def test_a_folder_is_replaced_completely_or_not_at_all(tmp_path):
    path = tmp_path / "model"
    with files.atomic_folder(path) as folder:
        (folder / "a").write_text("1")
    with pytest.raises(RuntimeError, match="killed"), files.atomic_folder(path) as folder:
        (folder / "b").write_text("2")
        raise RuntimeError("killed")
    assert [entry.name for entry in path.iterdir()] == ["a"]
    with files.atomic_folder(path) as folder:
        (folder / "c").write_text("3")
    assert [entry.name for entry in path.iterdir()] == ["c"]
    assert [entry.name for entry in tmp_path.iterdir()] == ["model"]


KILLED = """
import os, signal
from pathlib import Path
from distill.core.files import atomic_file, atomic_folder
with atomic_file(Path("a")) as file, atomic_folder(Path("b")) as folder:
    file.write_text("half")
    (folder / "c").write_text("half")
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_writer_removes_the_temporaries_of_a_killed_one(tmp_path):
    others = [tmp_path / ".a.json.12345678.tmp", tmp_path / ".a.notes.tmp", tmp_path / ".b.c"]
    for path in others:
        path.write_text("another's")
    for _ in range(3):
        subprocess.run([sys.executable, "-c", KILLED], cwd=tmp_path, env=os.environ | {"PYTHONPATH": str(ROOT)})
        assert len(list(tmp_path.iterdir())) == len(others) + 3  # the file, the folder and the one for the old folder
    files.write_text(tmp_path / "a", "whole")
    with files.atomic_folder(tmp_path / "b") as folder:
        (folder / "c").write_text("whole")
    assert set(tmp_path.iterdir()) == {*others, tmp_path / "a", tmp_path / "b"}


def test_the_old_folder_stays_complete_until_it_is_replaced(tmp_path, monkeypatch):
    path = tmp_path / "model"
    seen = []
    rename = Path.replace

    def replace(self, target):
        seen.append(sorted(file.name for file in path.iterdir()) if path.exists() else None)
        return rename(self, target)

    for name in ("old", "new"):
        with files.atomic_folder(path) as folder:
            (folder / f"{name}-1").touch()
            (folder / f"{name}-2").touch()
        monkeypatch.setattr(Path, "replace", replace)
    assert seen == [["old-1", "old-2"], None]
    assert sorted(file.name for file in path.iterdir()) == ["new-1", "new-2"]


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_nan_and_infinity_are_refused(tmp_path, value):
    with pytest.raises(ValueError, match="Out of range float"):
        files.write_json(tmp_path / "a.json", {"value": value})
    assert not list(tmp_path.iterdir())


def test_a_missing_input_names_the_stage_that_writes_it(tmp_path):
    with pytest.raises(UserError, match="it comes from stage weight"):
        list(files.read_rows(tmp_path / "none.jsonl", "stage weight"))
    with pytest.raises(UserError, match="it comes from stage weight"):
        files.read_json(tmp_path / "none.json", "stage weight")


@pytest.mark.parametrize("line", ["{", "[1]", "3", ""])
def test_a_broken_row_is_named_by_its_line(tmp_path, line):
    path = tmp_path / "rows.jsonl"
    path.write_text('{"id": 1}\n' + line + "\n")
    with pytest.raises(UserError, match="line 2"):
        list(files.read_rows(path, "a test"))


def test_the_hash_of_a_value_ignores_the_order_of_keys():
    assert files.value_hash({"a": 1, "b": 2}) == files.value_hash({"b": 2, "a": 1})
    assert files.value_hash({"a": 1}) != files.value_hash({"a": 2})


@pytest.mark.parametrize(
    ("error", "code", "text"),
    [
        (UserError("fix this"), "\nerror: fix this", "fix this"),
        (OSError(errno.ENOSPC, "No space left on device", "data/x"), None, "data/x: No space left on device"),
        (KeyboardInterrupt(), 130, None),
    ],
)
def test_a_mistake_of_the_user_ends_in_one_message(error, code, text):
    def main():
        raise error

    with pytest.raises(SystemExit) as ended:
        run_main(main)
    if code is not None:
        assert ended.value.code == code
    if text:
        assert text in str(ended.value.code)


def test_a_defect_of_the_project_keeps_its_traceback():
    def main():
        raise KeyError("ours")

    with pytest.raises(KeyError):
        run_main(main)


FULL = """
from pathlib import Path
from distill.core.errors import run_main
from distill.core.files import write_rows
def main():
    write_rows(Path("rows.jsonl"), ({"id": "x" * 1000} for _ in range(100_000)))
run_main(main)
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting a small disk needs root")
def test_a_full_disk_ends_in_one_message_and_the_old_file(tmp_path):
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(disk)], capture_output=True)
    if mounted.returncode:
        pytest.skip("this machine does not let tests mount a disk")
    try:
        files.write_rows(disk / "rows.jsonl", [{"id": "old"}])
        done = subprocess.run(
            [sys.executable, "-c", FULL],
            cwd=disk,
            env=os.environ | {"PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
        )
        assert done.returncode == 1
        assert "No space left" in done.stderr
        assert "Traceback" not in done.stderr
        assert [entry.name for entry in disk.iterdir()] == ["rows.jsonl"]
        assert list(files.read_rows(disk / "rows.jsonl", "a test")) == [{"id": "old"}]
    finally:
        subprocess.run(["umount", str(disk)], check=True)
