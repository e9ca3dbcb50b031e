"""Planted faults: with each of them, a test of the project fails.

A test that has never failed may check nothing. Each fault changes one line of a copy of the project, and the test that
guards this line must fail by an assertion. In a copy without a fault the same tests pass.
"""

import re

import pytest
import tiny
from forks import run_pytest
from planting import Fault, all_faults, copy_project, run_tests

FAULTS = all_faults()
ASSERTION = re.compile(r"E +(assert |AssertionError|Failed: DID NOT RAISE)")
each_fault = pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)


def test_faults_have_names_of_their_own():
    assert len({fault.name for fault in FAULTS}) == len(FAULTS) >= 70


@each_fault
def test_what_a_fault_replaces_occurs_once(fault: Fault):
    count = (tiny.ROOT / fault.file).read_text().count(fault.right)
    assert count == 1, (
        f"{fault.file} has changed: the line of the fault {fault.name!r} occurs {count} times. "
        "Copy it as it is now into faults.py of the room."
    )


def test_the_test_of_each_fault_exists():
    done = run_pytest(tiny.ROOT, "--collect-only", "-q", *dict.fromkeys(f"tests/{fault.test}" for fault in FAULTS))
    assert done.returncode == pytest.ExitCode.OK, done.stdout


@pytest.mark.slow
@each_fault
def test_a_planted_fault_is_noticed(tmp_path, fault: Fault):
    path = copy_project(tmp_path) / fault.file
    path.write_text(path.read_text().replace(fault.right, fault.wrong))
    done = run_tests(tmp_path, fault.test)
    assert done.returncode == pytest.ExitCode.TESTS_FAILED, f"not noticed:\n{done.stdout}\n{done.stderr}"
    errors = [line for line in done.stdout.splitlines() if line.startswith("E ")]
    assert ASSERTION.match(errors[0]), f"the test crashed and asserted nothing:\n{done.stdout}"


@pytest.mark.slow
def test_without_a_fault_the_same_tests_pass(tmp_path):
    done = run_tests(copy_project(tmp_path), *dict.fromkeys(fault.test for fault in FAULTS))
    assert done.returncode == pytest.ExitCode.OK, f"{done.stdout}\n{done.stderr}"
