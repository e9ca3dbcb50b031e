"""The command of stage clean."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from raw_rows import BAD_ROWS, SECTION, SEED, good_rows, raw_row

from distill.cleaning.splits import SPLITS
from stages import clean as stage

ROOT = Path(__file__).parents[2]


def command(folder):
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [sys.executable, "-m", "stages.clean"], cwd=folder, env=environment, capture_output=True, text=True, check=False
    )


@pytest.fixture
def folder(tmp_path):
    params = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))
    (tmp_path / "params.yaml").write_text(yaml.safe_dump({**params, "data_seed": SEED, "clean": SECTION}))
    (tmp_path / "data/raw").mkdir(parents=True)
    rows = [
        *good_rows(),
        *(raw_row("cats", **{"response": "", "form": f"q{n}", **bad}) for n, (_, bad) in enumerate(BAD_ROWS)),
    ]
    rows.append(raw_row("dogs", "Caf\u00e9s \u2028 are nice.", "line", note="an extra key"))
    lines = "".join(json.dumps(row) + "\n" for row in rows)
    (tmp_path / stage.RESPONSES).write_text(lines, encoding="utf-8")
    return tmp_path


def outputs(folder):
    files = [*(stage.FOLDER / f"{name}.jsonl" for name in (*SPLITS, "dropped")), stage.METRICS]
    return {str(file): (folder / file).read_bytes() for file in files}


def test_the_command_writes_the_same_bytes_twice(folder):
    first_run = command(folder)
    assert first_run.returncode == 0, first_run.stderr
    assert "dropped      2 failed\n" in first_run.stdout
    first = outputs(folder)
    assert command(folder).returncode == 0
    assert outputs(folder) == first
    originals = {row["id"]: row for row in map(json.loads, (folder / stage.RESPONSES).open(encoding="utf-8"))}
    for name, content in first.items():
        if name.endswith(".jsonl"):
            for row in map(json.loads, content.decode().split("\n")[:-1]):
                original = originals.pop(row["id"])
                assert row == original | {
                    key: row[key] for key in ("reason", "detail", "matching_text") if "dropped" in name
                }
    assert originals == {}
    assert json.loads(first["metrics/clean.json"])["reasons"]["failed"] == 2


def test_a_broken_row_stops_the_command_before_it_writes(folder):
    with (folder / stage.RESPONSES).open("a") as file:
        file.write('{"id": "half"}\n')
    result = command(folder)
    assert result.returncode == 1
    assert "line 15 (id 'half') is broken: prompt_id: field required" in result.stderr
    assert "Traceback" not in result.stderr
    assert not (folder / stage.FOLDER).exists()
