"""`make verify` passes reproducible outputs and catches others, by real commands and fault by fault."""

import json
import shutil
from pathlib import Path

import pytest
import tiny
import yaml
from chat_server import api_teacher, chat_server

from distill.evaluation.goals import GOALS
from distill.params.loading import check_params
from tools.verify import clone
from tools.verify.__main__ import compare_outputs

API = api_teacher("http://127.0.0.1:9/v1", max_retries=0)
KEPT_RUN = "write_json(METRICS, metrics)\n"
PLANTED = KEPT_RUN + '    write_json(METRICS, metrics | {"words": list({str(number) for number in range(50)})})\n'


def record(folder: Path) -> dict:
    return json.loads((folder / "metrics/verify.json").read_text())


def commit(folder: Path) -> str:
    tiny.run(folder, "git", "add", "-A")
    tiny.run(folder, "git", "commit", "-qm", "Results")
    return tiny.run(folder, "git", "rev-parse", "HEAD").stdout.strip()


@pytest.mark.timeout(900)  # a whole pipeline, after that of the fixture
def test_the_same_seed_gives_the_same_bytes_elsewhere(committed, tmp_path):
    folder = tmp_path / "repository"
    tiny.run(committed, "git", "clone", "-q", str(committed), str(folder))
    done = tiny.run(folder, "python", "-m", "tools.verify", timeout=600)
    assert "none different" in done.stdout
    lock = yaml.safe_load((folder / "dvc.lock").read_text())
    outputs = {f"{name}/{out['path']}" for name, stage in lock["stages"].items() for out in stage["outs"]}
    found = record(folder)
    assert found["commit"] == tiny.run(folder, "git", "rev-parse", "HEAD").stdout.strip()
    assert found["outputs"] == dict.fromkeys(found["outputs"], "same")
    assert set(found["outputs"]) == outputs
    assert found["environment"]["threads"] == 1


CLEANED = {
    "clean/data/clean/dropped.jsonl": "same",
    "clean/data/clean/test.jsonl": "same",
    "clean/data/clean/train.jsonl": "same",
    "clean/data/clean/validation.jsonl": "same",
    "clean/metrics/clean.json": "different",
}


@pytest.mark.slow
def test_faults_are_caught_and_no_endpoint_is_queried(tmp_path, monkeypatch):
    with chat_server() as server:
        teachers = [*tiny.params()["teachers"], API | {"base_url": server.url}]
        folder = tiny.repository(tmp_path / "repository", teachers=teachers)
        script = folder / "stages/clean.py"
        assert KEPT_RUN in script.read_text()
        script.write_text(script.read_text().replace(KEPT_RUN, PLANTED))
        monkeypatch.setenv("TINY_KEY", "a-key")
        tiny.run(folder, "dvc", "repro", "clean")
        asked = len(server.bodies)
        faked = folder / "metrics/generate.json"
        said = faked.read_text()
        faked.write_text(said.replace('"answered": 42', '"answered": 43'))
        assert faked.read_text() != said
        head = commit(folder)
        done = tiny.run(folder, "python", "-m", "tools.verify", "clean", check=False)
        assert done.returncode == 1
        assert "not reproduced" in done.stderr
        found = record(folder)
        assert found["commit"] == head
        answers, counts = "generate/data/raw/responses.jsonl", "generate/metrics/generate.json"
        assert found["outputs"] == {answers: "same", counts: "different"} | CLEANED

        # elsewhere: without the journal, then from the remote alone, then without anything
        shutil.rmtree(folder / ".distill")
        tiny.run(folder, "dvc", "push", "-q", "data/raw/responses.jsonl")
        shutil.rmtree(folder / ".dvc/cache")
        done = tiny.run(folder, "python", "-m", "tools.verify", "clean", check=False)
        assert "replayed: " in done.stdout
        assert record(folder)["outputs"] == {answers: "replayed", counts: "different"} | CLEANED
        shutil.rmtree(folder / ".dvc/cache", ignore_errors=True)
        shutil.rmtree(tmp_path / "distill-storage")
        done = tiny.run(folder, "python", "-m", "tools.verify", "clean", check=False)
        assert done.returncode == 1
        assert "responses.jsonl is neither in DVC's cache nor in its remote" in done.stderr
        assert len(server.bodies) == asked > 0


def lock(**hashes: str) -> dict:
    outs = [{"path": path.replace("__", "/"), "md5": digest} for path, digest in hashes.items()]
    return {"stages": {"clean": {"outs": outs}}}


@pytest.mark.parametrize(
    ("before", "after", "edited", "word"),
    [
        ("1", "1", set(), "same"),
        ("1", "1", {"metrics/b"}, "same"),
        ("1", "2", set(), "different"),
        ("1", "1", {"metrics/a"}, "different"),
        ("2", "1", {"metrics/a"}, "different"),
    ],
)
def test_an_output_is_compared_by_lock_and_by_git(before, after, edited, word):
    found = compare_outputs(lock(metrics__a=before), lock(metrics__a=after), edited)
    assert found == {"clean/metrics/a": word}


@pytest.mark.slow
def test_an_edited_file_in_git_is_found_by_its_hash(committed, tmp_path):
    folder = tmp_path / "repository"
    clone.clone(committed, "HEAD", folder)
    variables = tiny.environment()
    assert clone.edited_outputs(folder, variables) == set()
    table = folder / "metrics/metrics.json"
    table.write_text(table.read_text() + " ")
    assert clone.edited_outputs(folder, variables) == {"metrics/metrics.json"}


def test_an_output_that_is_gone_or_new_is_different():
    found = compare_outputs(lock(a="1", b="2"), lock(b="2", c="3"), set())
    assert found == {"clean/a": "different", "clean/b": "same", "clean/c": "different"}


def goals(gain: float, **changes: float) -> dict:
    values = {"accuracy_ratio": 0.9, "perplexity": 10.0, "compression_ratio": 0.2, "latency_gain": gain} | changes
    return {"goals": values | {"met": sum(goal.met(values[goal.name]) for goal in GOALS)}}


def test_only_a_measured_latency_is_copied_into_the_table():
    rerun, measured = goals(1.4), {"latency_gain": 3.13}
    assert clone.with_latency(rerun, goals(3.1), measured) == goals(3.1)
    assert clone.with_latency(rerun, goals(9.9), measured) == goals(3.1)  # a faked gain stands out as a difference
    faked = goals(3.1) | {"teacher": {"accuracy": 1.0}}
    assert clone.with_latency(rerun, faked, measured) != faked
    faked = goals(3.1, accuracy_ratio=0.99)
    assert clone.with_latency(rerun, faked, measured) != faked


def test_the_run_has_another_environment_and_no_key():
    value = tiny.params(teachers=[*tiny.params()["teachers"], API])
    mine = {"PATH": "/bin", "TINY_KEY": "secret", "PYTHONHASHSEED": "1", "TZ": "OTHER-13:45", "HOME": "/home"}
    other = clone.other_environment(mine, check_params(value), Path("/elsewhere"))
    assert "TINY_KEY" not in other
    assert other["HOME"] == "/home"
    assert other["DISTILL_HOME"] == "/elsewhere"
    assert other["PYTHONHASHSEED"] != mine["PYTHONHASHSEED"]
    assert other["TZ"] != mine["TZ"]


def test_only_journals_of_endpoints_are_copied(tmp_path):
    value = check_params(tiny.params(teachers=[*tiny.params()["teachers"], API]))
    source = tmp_path / "journal"
    source.mkdir()
    for name in (f"tiny-{'0' * 16}.jsonl", f"api-other-{'0' * 16}.jsonl"):
        (source / name).write_text("{}\n")
    assert clone.copy_journals(value, source, tmp_path / "first") == ["api"]
    assert not list((tmp_path / "first").iterdir())
    (source / f"api-{'a' * 16}.jsonl").write_text("{}\n")
    assert clone.copy_journals(value, source, tmp_path / "second") == []
    assert [path.name for path in (tmp_path / "second").iterdir()] == [f"api-{'a' * 16}.jsonl"]
