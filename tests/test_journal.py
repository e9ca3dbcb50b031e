import os
import signal
import subprocess
import sys
import time

import pytest

from distill.answers import Answer, Request, failed
from distill.errors import UserError
from distill.journal import Journal

SETTINGS = {"model": "m", "seed": 1}


def answer(name: str, text: str = "hello") -> Answer:
    return Answer(name, text, "stop", [-0.5], {"prompt_tokens": 1, "completion_tokens": 1}, None)


def test_what_was_answered_is_there_on_the_next_opening(tmp_path):
    path = tmp_path / "deep" / "journal.jsonl"
    with Journal(path, SETTINGS) as journal:
        journal.append([answer("a"), answer("b", "naïve 😀")])
    with Journal(path, SETTINGS) as journal:
        assert journal.answers == {"a": answer("a"), "b": answer("b", "naïve 😀")}


def test_a_torn_last_line_is_cut_and_the_file_goes_on(tmp_path):
    path = tmp_path / "journal.jsonl"
    with Journal(path, SETTINGS) as journal:
        journal.append([answer("a"), answer("b")])
    path.write_bytes(path.read_bytes()[:-10])
    with Journal(path, SETTINGS) as journal:
        assert list(journal.answers) == ["a"]
        journal.append([answer("c")])
    with Journal(path, SETTINGS) as journal:
        assert list(journal.answers) == ["a", "c"]


def test_a_torn_header_is_written_anew(tmp_path):
    path = tmp_path / "journal.jsonl"
    path.write_bytes(b'{"schema": 1, "sett')
    with Journal(path, SETTINGS) as journal:
        assert journal.answers == {}
    assert path.read_bytes().count(b"\n") == 1


def test_a_failure_is_kept_and_counts_as_not_answered(tmp_path):
    path = tmp_path / "journal.jsonl"
    failure = failed(Request("a", [], 1), "timeout", "late")
    with Journal(path, SETTINGS) as journal:
        journal.append([failure])
    with Journal(path, SETTINGS) as journal:
        assert journal.answers == {}
        assert journal.latest == {"a": failure}
        journal.append([answer("a")])
        assert journal.answers == {"a": answer("a")}


def test_a_broken_line_in_the_middle_is_named(tmp_path):
    path = tmp_path / "journal.jsonl"
    with Journal(path, SETTINGS) as journal:
        journal.append([answer("a")])
    path.write_bytes(path.read_bytes() + b'{"id": 3}\n')
    with pytest.raises(UserError, match="line 3 is broken"):
        Journal(path, SETTINGS)


def test_a_second_writer_is_refused(tmp_path):
    path = tmp_path / "journal.jsonl"
    with Journal(path, SETTINGS), pytest.raises(UserError, match="in use by another run"):
        Journal(path, SETTINGS)
    with Journal(path, SETTINGS):
        pass


def test_a_journal_of_other_settings_is_refused(tmp_path):
    path = tmp_path / "journal.jsonl"
    with Journal(path, SETTINGS):
        pass
    with pytest.raises(UserError, match="other settings"):
        Journal(path, SETTINGS | {"seed": 2})


WRITER = """
import sys
from pathlib import Path
from distill.answers import Answer
from distill.journal import Journal
with Journal(Path(sys.argv[1]), {"model": "m"}) as journal:
    for number in range(len(journal.answers), 100_000):
        journal.append([Answer(str(number), "x" * 2000, "stop", None, None, None)])
        print(number, flush=True)
"""


def test_nothing_that_append_returned_from_is_lost_to_sigkill(tmp_path):
    path = tmp_path / "journal.jsonl"
    for pause in (0.1, 0.23, 0.37):
        writer = subprocess.Popen([sys.executable, "-c", WRITER, str(path)], stdout=subprocess.PIPE)
        assert writer.stdout is not None
        writer.stdout.readline()
        time.sleep(pause)
        os.kill(writer.pid, signal.SIGKILL)
        told = writer.stdout.read().split()
        writer.wait()
        with Journal(path, {"model": "m"}) as journal:
            assert int(told[-1]) < len(journal.answers) <= int(told[-1]) + 2
            assert list(journal.answers) == [str(number) for number in range(len(journal.answers))]
