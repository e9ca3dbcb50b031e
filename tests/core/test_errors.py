"""The end of a command in a process group that another program started."""

import re

import pytest
import tiny

from distill.core.errors import run_main


@pytest.mark.parametrize("name", ["WORLD_SIZE", "OMPI_COMM_WORLD_SIZE", "PMI_SIZE"])
@pytest.mark.parametrize("number", ["2", " 64 ", "9" * 5000])
def test_one_of_several_processes_is_refused(name, number):
    ran = []
    with pytest.raises(SystemExit) as ended:
        run_main(lambda: ran.append(1), {name: number})
    assert not ran
    assert re.search(rf"must be run by one process, got \d+ \(environment variable {name}\)", str(ended.value.code))
    assert len(str(ended.value.code)) < 300


@pytest.mark.parametrize("environment", [None, {}, {"WORLD_SIZE": "1"}, {"WORLD_SIZE": ""}, {"WORLD_SIZE": "two"}])
def test_a_process_of_its_own_runs(environment):
    ran = []
    run_main(lambda: ran.append(1), environment)
    assert ran == [1]


def test_every_stage_gives_its_environment():
    for path in (tiny.ROOT / "stages").glob("[a-z]*.py"):
        assert "    run_main(main, os.environ)\n" in path.read_text(), path


def test_torchrun_of_two_processes_is_refused(tmp_path):
    command = ["-m", "torch.distributed.run", "--nproc-per-node", "2", "-m", "stages.train", "sft", "20"]
    done = tiny.run(tiny.ROOT, "python", *command, check=False)
    assert done.returncode != 0
    assert "error: A stage must be run by one process, got 2 (environment variable WORLD_SIZE)" in done.stderr
    assert "stages/train.py" not in done.stderr, "a traceback of the stage"
