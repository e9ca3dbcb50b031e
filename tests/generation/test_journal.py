"""The journal: truncated lines, kills, locks and billed tokens."""

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace

import pytest

from distill.core.errors import UserError
from distill.generation.completions import TOKENS, Completion, Request, failed_completion
from distill.generation.journal import Journal

SETTINGS = {"model": "m", "seed": 1}


def completion(name: str, text: str = "hello") -> Completion:
    return Completion(name, text, "stop", [-0.5], {"prompt_tokens": 1, "completion_tokens": 1}, None)


def test_completions_are_there_on_the_next_opening(tmp_path):
    path = tmp_path / "deep" / "journal.jsonl"
    with Journal(path, SETTINGS) as journal:
        journal.append([completion("a"), completion("b", "naïve 😀")])
    with Journal(path, SETTINGS) as journal:
        assert dict(journal.latest) == {"a": completion("a"), "b": completion("b", "naïve 😀")}


def test_a_truncated_last_line_is_removed(tmp_path):
    path = tmp_path / "journal.jsonl"
    with Journal(path, SETTINGS) as journal:
        journal.append([completion("a"), completion("b")])
    path.write_bytes(path.read_bytes()[:-10])
    with Journal(path, SETTINGS) as journal:
        assert list(journal.latest) == ["a"]
        journal.append([completion("c")])
    with Journal(path, SETTINGS) as journal:
        assert list(journal.latest) == ["a", "c"]


def test_a_truncated_header_is_written_again(tmp_path):
    path = tmp_path / "journal.jsonl"
    path.write_bytes(b'{"schema": 1, "sett')
    with Journal(path, SETTINGS) as journal:
        assert dict(journal.latest) == {}
    assert path.read_bytes().count(b"\n") == 1


def test_a_failure_is_kept_but_not_completed(tmp_path):
    path = tmp_path / "journal.jsonl"
    failure = failed_completion(Request("a", [], 1), "timeout", "late")
    with Journal(path, SETTINGS) as journal:
        journal.append([failure])
    with Journal(path, SETTINGS) as journal:
        assert journal.completed == set()
        assert dict(journal.latest) == {"a": failure}
        journal.append([completion("a")])
        assert journal.completed == {"a"}
        assert dict(journal.latest) == {"a": completion("a")}


def test_a_broken_line_in_the_middle_is_named(tmp_path):
    path = tmp_path / "journal.jsonl"
    with Journal(path, SETTINGS) as journal:
        journal.append([completion("a")])
    path.write_bytes(path.read_bytes() + b'{"id": 3}\n')
    with pytest.raises(UserError, match="line 3 is broken"):
        Journal(path, SETTINGS)


def test_any_changed_letter_is_noticed(tmp_path):
    path = tmp_path / "journal.jsonl"
    with Journal(path, SETTINGS) as journal:
        journal.record_sent("a", {"prompt_tokens": 5, "completion_tokens": 5})
        journal.append([completion("a", "honey"), completion("b", "bees")])
    good = path.read_bytes()
    second = good.index(b"\n", good.index(b"\n") + 1) + 1
    for place in range(second, len(good) - 1):
        path.write_bytes(good[:place] + bytes([good[place] ^ 1]) + good[place + 1 :])
        with pytest.raises(UserError, match=r"line [345] is broken"):
            Journal(path, SETTINGS)
    path.write_bytes(good)
    with Journal(path, SETTINGS) as journal:
        assert journal.completed == {"a", "b"}


def test_the_advice_for_a_broken_line_costs_that_line_alone(tmp_path):
    path = tmp_path / "journal.jsonl"
    with Journal(path, SETTINGS) as journal:
        journal.append([completion("a"), completion("b", "honey"), completion("c")])
    path.write_bytes(path.read_bytes().replace(b"honey", b"money"))
    with pytest.raises(UserError, match="line 3 is broken") as error:
        Journal(path, SETTINGS)
    assert "sed -i 3d" in str(error.value)
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(lines[:2] + lines[3:]))
    with Journal(path, SETTINGS) as journal:
        assert journal.completed == {"a", "c"}


@pytest.mark.parametrize(
    "header", [b"", b"garbage\n", b'{"schema": 2, "sett\xffngs": {"model": "m"}}\n', b"[]\n", b"7\n"]
)
def test_a_broken_header_costs_no_completion(tmp_path, header):
    path = tmp_path / "journal.jsonl"
    with Journal(path, SETTINGS) as journal:
        journal.append([completion("a"), completion("b")])
    path.write_bytes(header + path.read_bytes().partition(b"\n")[2])
    for name in ("c", "d"):
        with Journal(path, SETTINGS) as journal:
            assert journal.completed >= {"a", "b"}
            assert journal.latest["a"] == completion("a")
            journal.append([completion(name)])
    with Journal(path, SETTINGS) as journal:
        assert journal.completed == {"a", "b", "c", "d"}


def test_a_journal_of_an_earlier_version_is_read(tmp_path):
    path = tmp_path / "journal.jsonl"
    lines = [
        {"schema": 2, "settings": SETTINGS},
        vars(completion("a")),
        {"sent": "b", "tokens": dict.fromkeys(TOKENS, 9)},
    ]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    with Journal(path, SETTINGS) as journal:
        assert dict(journal.latest) == {"a": completion("a")}
        assert dict(journal.billed) == dict.fromkeys(TOKENS, 9)
        journal.append([completion("c")])
    with Journal(path, SETTINGS) as journal:
        assert journal.completed == {"a", "c"}


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
    with pytest.raises(UserError, match="must be a journal with"):
        Journal(path, SETTINGS | {"seed": 2})


def test_completions_are_readable_after_the_journal_is_closed(tmp_path):
    with Journal(tmp_path / "journal.jsonl", SETTINGS) as journal:
        journal.append([completion("a", "first"), completion("b")])
        journal.append([completion("a", "second")])
    assert journal.latest["a"].response == "second"
    assert len(journal.latest) == 2


def test_a_sent_attempt_counts_in_full_until_its_completion(tmp_path):
    path = tmp_path / "journal.jsonl"
    most, used = {"prompt_tokens": 50, "completion_tokens": 10}, {"prompt_tokens": 5, "completion_tokens": 2}
    with Journal(path, SETTINGS) as journal:
        journal.record_sent("a", most)  # killed before its answer
    with Journal(path, SETTINGS) as journal:
        assert dict(journal.billed) == most
        journal.record_sent("a", most)
        journal.append([replace(completion("a"), billed=used)])
    with Journal(path, SETTINGS) as journal:
        assert dict(journal.billed) == {"prompt_tokens": 55, "completion_tokens": 12}
        assert journal.in_flight == {}


def test_the_newest_note_is_there_on_the_next_opening(tmp_path):
    path = tmp_path / "journal.jsonl"
    with Journal(path, SETTINGS) as journal:
        journal.note("batch/1", {"ended": False})
        journal.note("batch/1", {"ended": True})
    with Journal(path, SETTINGS) as journal:
        assert journal.notes == {"batch/1": {"ended": True}}


WRITER = """
import sys
from pathlib import Path
from distill.generation.completions import Completion
from distill.generation.journal import Journal
with Journal(Path(sys.argv[1]), {"model": "m"}) as journal:
    for number in range(len(journal.latest), 100_000):
        journal.append([Completion(str(number), "x" * 2000, "stop", None, None, None)])
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
            assert int(told[-1]) < len(journal.latest) <= int(told[-1]) + 2
            assert list(journal.latest) == [str(number) for number in range(len(journal.latest))]
