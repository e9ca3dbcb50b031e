"""Hostile values of params.yaml and the commands that DVC runs: `dvc repro` with the stages' own commands."""

import pytest
import tiny
import yaml

from distill.core.errors import UserError
from distill.students.runs import Run

SEEDS = ["7; touch pwned; #", "$(touch pwned)", "7\ntouch pwned\n"]


def test_a_command_in_a_seed_is_never_run(tmp_path, monkeypatch):
    stages = yaml.safe_load((tiny.ROOT / "dvc.yaml").read_text())["stages"]
    pipeline = {"sft": {"foreach": "${training_seeds}", "do": {"cmd": stages["sft"]["do"]["cmd"]}}}
    (tmp_path / "dvc.yaml").write_text(yaml.safe_dump({"stages": pipeline}))
    (tmp_path / "params.yaml").write_text(yaml.safe_dump({"training_seeds": SEEDS}))
    monkeypatch.setenv("PYTHONPATH", str(tiny.ROOT))
    tiny.run(tmp_path, "dvc", "init", "-q", "--no-scm")
    done = tiny.run(tmp_path, "dvc", "repro", "--keep-going", check=False)
    assert done.returncode
    assert done.stderr.count("sft needs a training seed, a whole number, got stage 'sft@") == len(SEEDS)
    assert not (tmp_path / "pwned").exists()


@pytest.mark.parametrize("stage", ["", "sft", "sft@", "sft@x", "distilled@7", "sft@7 ", "sft@-7", "sft@\u0667"])
def test_a_stage_without_a_whole_number_names_no_run(stage):
    with pytest.raises(UserError, match="sft needs a training seed, a whole number"):
        Run.of_stage("sft", stage)


def test_dvc_names_the_run_by_its_stage():
    assert Run.of_stage("sft", "sft@7") == Run.of_stage("sft", "folder/dvc.yaml:sft@7") == Run("sft", 7)
