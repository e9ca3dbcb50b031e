"""The stage with an API teacher: output, files, and a key that stays secret."""

import contextlib
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import query_run
import yaml
from chat_server import Reply, chat_server
from query_run import teacher

from distill.generation.api import capabilities
from distill.params.teachers import ApiTeacher

ROOT = Path(__file__).parents[2]
PROBES, PROMPTS = len(capabilities.SEEDS), 12
PRICE = {"prompt": 1.0, "completion": 10.0}
SPENT = (5 * 1.0 + 8 * 10.0) / 1e6  # USD, of an answer of the scripted server


def experiment(folder: Path, api: ApiTeacher) -> Path:
    """The shipped params with that teacher in a folder of their own; the local teacher has no prompt."""
    value = yaml.safe_load((ROOT / "params.yaml").read_text())
    value["teachers"] = [value["teachers"][0] | {"prompt_fraction": 1e-9}, api.model_dump()]
    value["generate"]["prompts"]["path"] = "prompts.jsonl"
    (folder / "params.yaml").write_text(yaml.safe_dump(value))
    (folder / "prompts.jsonl").write_text("".join(json.dumps(row) + "\n" for row in query_run.prompts(PROMPTS)))
    return folder


def stage(folder: Path, *options: str, **environment: str) -> subprocess.CompletedProcess[str]:
    ours = {"PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1", "TINY_KEY": query_run.KEY, "DISTILL_HOME": ""}
    return subprocess.run(
        [sys.executable, "-m", "stages.generate", *options], cwd=folder, env=os.environ | ours | environment,
        capture_output=True, text=True, timeout=200, check=False,
    )  # fmt: skip


def test_the_key_is_in_no_file_log_or_process_listing(tmp_path):
    key, seen = query_run.KEY, []

    def listing() -> str:
        found = []
        for path in Path("/proc").glob("[0-9]*/cmdline"):
            with contextlib.suppress(OSError):  # it has ended
                found.append(path.read_text(errors="replace"))
        return "\n".join(found)

    def script(number, body):
        seen.append(listing())
        if number > PROBES:
            message = json.dumps({"error": {"message": f"odd {key}", "code": f"c-{key}"}})
            return Reply(401 if number == PROBES + 6 else 400, message, {"x-key": key})
        return None

    with chat_server(script) as server:
        folder = experiment(tmp_path, teacher(server.url))
        done = stage(folder, OPENAI_LOG="debug")
    assert server.keys[0] == f"Bearer {key}"
    assert done.returncode == 1
    assert "refused the key" in done.stderr
    assert "Traceback" not in done.stderr
    assert "stages.generate" in seen[0]
    places = [done.stdout, done.stderr, *seen, *(path.read_text(errors="replace") for path in files(folder))]
    assert any("***" in place for place in places)
    assert not any(key in place for place in places)


def files(folder):
    return [path for path in folder.rglob("*") if path.is_file()]


def test_a_dry_run_prints_the_cost_and_sends_nothing(tmp_path):
    with chat_server() as server:
        folder = experiment(tmp_path, teacher(server.url, price=PRICE))
        before = stage(folder, "--dry-run").stdout
        assert server.bodies == []
        assert not list(folder.rglob("journal/*"))
        stage(folder)
        sent = len(server.bodies)
        after = stage(folder, "--dry-run").stdout
        assert len(server.bodies) == sent == PROMPTS + PROBES
    assert re.search(rf"^api +0 +{PROMPTS + PROBES} ", before, re.MULTILINE)
    assert re.search(rf"^api +{PROMPTS} +0 +0 +0 +0\.0000", after, re.MULTILINE)
    assert f"spent so far {sent * SPENT:.4f}" in after
    metrics = json.loads((folder / "metrics/generate.json").read_text())["api"]
    assert metrics["cost_usd"] == pytest.approx(sent * SPENT)
    assert metrics["probe"]["temperature_matters"] is True
    assert (metrics["requests"], metrics["answered"], metrics["failed"]) == (PROMPTS, PROMPTS, {})


def test_each_sample_has_its_own_request_seed_and_row(tmp_path):
    with chat_server() as server:
        folder = experiment(tmp_path, teacher(server.url))
        value = yaml.safe_load((folder / "params.yaml").read_text())
        value["generate"] |= {"num_samples": 3, "sampling_temperature": 0.7}
        (folder / "params.yaml").write_text(yaml.safe_dump(value))
        done = stage(folder)
        assert done.returncode == 0, done.stderr
        sent = server.bodies[PROBES:]
    assert len(sent) == len({body["seed"] for body in sent}) == 3 * PROMPTS
    assert len({json.dumps(body["messages"]) for body in sent}) == PROMPTS
    assert all(body.get("n", 1) == 1 for body in sent)
    rows = [json.loads(line) for line in (folder / "data/raw/responses.jsonl").read_text().splitlines()]
    assert [row["sample"] for row in rows] == [0, 1, 2] * PROMPTS


@pytest.mark.parametrize("end", ["\n", "\u00e9"])
def test_a_key_that_no_header_takes_is_refused_unseen(tmp_path, end):
    with chat_server() as server:
        folder = experiment(tmp_path, teacher(server.url))
        done = stage(folder, TINY_KEY=query_run.KEY + end)
    assert done.returncode == 1
    assert "the environment variable TINY_KEY must hold the key" in done.stderr
    assert "Nothing was sent" in done.stderr
    assert server.bodies == []
    places = [done.stdout, done.stderr, *(path.read_text(errors="replace") for path in files(folder))]
    assert not any(query_run.KEY in place for place in places)


def test_many_failures_are_no_success_and_write_no_rows(tmp_path):
    def script(_, body):
        return Reply(400, '{"error": {"message": "too long"}}') if "0003" in str(body["messages"]) else None

    with chat_server(script) as server:
        folder = experiment(tmp_path, teacher(server.url))
        value = yaml.safe_load((folder / "params.yaml").read_text())
        (folder / "params.yaml").write_text(
            yaml.safe_dump(value | {"generate": value["generate"] | {"max_failed_fraction": 0.05}})
        )
        done = stage(folder)
        assert done.returncode == 1
        assert "got 1 failures of 12 (http_400 1). One of them: too long" in done.stderr
        assert not (folder / "data/raw/responses.jsonl").exists()
    assert len(server.bodies) == PROBES + PROMPTS
