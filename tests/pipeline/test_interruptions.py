"""Kills and full disks at any moment leave no half output and do not change the final bytes."""

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import tiny
import yaml

SCRIPT = tiny.ROOT / "tests/support/interrupting.py"
STAGES = ["generate", "clean", "targets", "weight", "init", "sft", "distilled", "evaluate", "plot"]
KILLS = int(os.environ.get("INTERRUPTIONS", "3"))  # of each stage; 20 in `make test-interruptions`
FULL = max(1, KILLS // 3)  # full disks of each stage
SEED = os.environ.get("INTERRUPTIONS_SEED", "20")
NO_DISK = "only root can mount a small disk to fill"
MIDDLE = (0.3, 0.7)  # of a stage's work
LIMIT = 600 + 300 * KILLS  # seconds; everything runs once, before the first test
pytestmark = [pytest.mark.timeout(LIMIT), pytest.mark.xdist_group("interruptions")]


def interrupt(folder: Path, *stages: str, kills: int, full: int, part: tuple[float, float] = (0, 1)) -> dict[str, Any]:
    """The report of interrupting.py on these stages of a finished repository."""
    command = ["python", str(SCRIPT), *stages, f"--kills={kills}", f"--full={full}", f"--seed={SEED}"]
    done = tiny.run(folder, *command, "--part", *map(str, part), timeout=LIMIT)
    print(done.stdout)
    return json.loads(done.stdout)["stages"]


def copy_outputs(finished: Path, folder: Path) -> Path:
    """Copies a finished repository without its cache, history and journals."""
    ignored = shutil.ignore_patterns("cache", "tmp", ".distill", ".git")
    return shutil.copytree(finished, folder, ignore=ignored, dirs_exist_ok=True)


def stage_names(finished: Path) -> list[str]:
    """The stages of dvc.lock; sft and distilled have one for each training seed."""
    return list(yaml.safe_load((finished / "dvc.lock").read_text())["stages"])


@pytest.fixture(scope="module")
def middle(finished, tmp_path_factory) -> dict[str, Any]:
    """The report of each stage after one kill in the middle of its work."""
    folder = copy_outputs(finished, tmp_path_factory.mktemp("killed"))
    return interrupt(folder, *stage_names(finished), kills=1, full=0, part=MIDDLE)


@pytest.fixture(scope="module")
def reports(finished, tmp_path_factory) -> Iterator[dict[str, Any]]:
    """The report of each stage."""
    folder = tmp_path_factory.mktemp("interrupted")
    mount = ["mount", "-t", "tmpfs", "-o", "size=64m", "tmpfs", str(folder)]
    disk = os.geteuid() == 0 and subprocess.run(mount, capture_output=True, check=False).returncode == 0
    try:
        yield interrupt(copy_outputs(finished, folder), *stage_names(finished), kills=KILLS, full=FULL if disk else 0)
    finally:
        if disk:
            subprocess.run(["umount", str(folder)], check=True)


def stage_reports(reports: dict[str, Any], stage: str) -> dict[str, Any]:
    """Its reports by name."""
    found = {name: report for name, report in reports.items() if name.partition("@")[0] == stage}
    assert found
    return found


@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_killed_in_the_middle_resumes_to_the_same_bytes(middle, stage):
    for name, found in stage_reports(middle, stage).items():
        assert found["wrong"] == [], name
        (event,) = found["kills"]["event"]
        assert 0 < event < found["limits"]["event"] - 1
        assert found["came_too_late"]["event"] == [], name


@pytest.mark.slow
@pytest.mark.parametrize("stage", STAGES)
def test_kills_leave_no_half_output_and_the_same_bytes(reports, stage):
    for name, found in stage_reports(reports, stage).items():
        assert found["wrong"] == [], name
        assert sum(map(len, found["kills"].values())) == KILLS
        late = sum(map(len, found["came_too_late"].values()))  # the work was over, or a resumed one was shorter
        assert late <= KILLS * 2 // 3, name


@pytest.mark.slow
@pytest.mark.parametrize("stage", STAGES)
def test_a_full_disk_gives_one_message_and_no_half_output(reports, stage):
    for name, found in stage_reports(reports, stage).items():
        if not found["rooms"]:
            pytest.skip(NO_DISK)
        assert found["wrong_when_full"] == [], name
        assert len(found["rooms"]) == FULL


@pytest.mark.slow
def test_files_that_are_written_in_place_are_detected(finished, tmp_path):
    folder = copy_outputs(finished, tmp_path / "repository")
    files = folder / "distill/core/files.py"
    made = "        yield temporary\n        _sync(temporary)\n"
    assert made in files.read_text()
    files.write_text(files.read_text().replace(made, "        yield path\n        return\n"))
    found = interrupt(folder, "clean", kills=6, full=0)["clean"]
    assert any("half of data/clean/" in line for line in found["wrong"]), found
