"""Stage evaluate by its real command: its outputs, its cache and benchmarks."""

import json
import shutil
from pathlib import Path

import benchmark_task
import forks
import pytest
import yaml

from distill.core.files import write_json
from distill.students.runs import weights_hash

pytestmark = pytest.mark.xdist_group("evaluate")  # tests change one repository by turns


@pytest.fixture(scope="module")
def repository(finished, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("evaluate") / "repository"
    return shutil.copytree(finished, folder, ignore=shutil.ignore_patterns("cache", "tmp", ".distill"))


def run(folder: Path) -> str:
    return forks.stage(folder, "evaluate").stdout


def written(folder: Path) -> dict[str, bytes]:
    names = ["metrics/evaluate.json", "metrics/items.csv", "metrics/samples.jsonl", "metrics/regressions.jsonl"]
    return {name: (folder / name).read_bytes() for name in [*names, "data/evaluated/benchmark_samples.jsonl"]}


def rows(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_the_cache_changes_no_byte_and_saves_measurements(finished, repository):
    assert "measured before" not in run(repository)
    first = written(repository)
    assert first == written(finished)
    kept = {path.name.rpartition("-")[0]: path for path in (repository / ".distill/evaluations").iterdir()}
    assert sorted(kept) == ["distilled-7", "init", "sft-7", "teacher"]
    kept["sft-7"].write_text(kept["sft-7"].read_text()[:-9])
    again = run(repository)
    assert [name for name in kept if f"{name}: measured before" in again] == [name for name in kept if name != "sft-7"]
    assert f"{kept['sft-7'].name} is damaged" in again
    assert written(repository) == first
    record = repository / "metrics/train/distilled-7.json"
    shutil.rmtree(repository / "models/distilled-7")
    shutil.copytree(repository / "models/sft-7", repository / "models/distilled-7")
    write_json(record, json.loads(record.read_text()) | {"weights": weights_hash(repository / "models/sft-7")})
    other = run(repository)  # a new student: the teacher is not measured again
    assert "teacher: measured before" in other
    assert "distilled-7: measured before" not in other
    assert "latency" in other
    shutil.rmtree(repository / "models/distilled-7")
    shutil.copytree(finished / "models/distilled-7", repository / "models/distilled-7")
    shutil.copyfile(finished / "metrics/train/distilled-7.json", record)


def test_calibration_lengths_and_regressions_fit_the_items(finished):
    scores = json.loads((finished / "metrics/evaluate.json").read_text())
    assert scores["held_out"] >= scores["items"] == 10
    for model in ("teacher", "init", "sft", "distilled"):
        assert 0 <= scores["calibration"][model]["ece"] <= 1
        assert scores["calibration"][model]["accuracy"] == scores["models"][model]["accuracy"]["value"]
        assert 0 <= scores["lengths"][model]["ended"] <= 1
    assert (scores["benchmarks"], scores["limited_benchmarks"]) == ({}, {})
    found = rows(finished / "metrics/regressions.jsonl")
    excess = [(row["distilled_nll"] - row["teacher_nll"]) / row["tokens"] for row in found]
    assert excess == sorted(excess, reverse=True)
    assert min(excess) > 0
    texts = {row["id"]: row["generated"] for row in rows(finished / "metrics/samples.jsonl")}
    for row in found:
        for model, text in row["generated"].items():
            assert text == texts.get(row["id"], {}).get(model)


def test_benchmarks_have_samples_and_limited_ones_stand_apart(repository):
    path = repository / "params.yaml"
    before = path.read_text()
    task = benchmark_task.write(repository / "tasks").relative_to(repository)
    value = yaml.safe_load(before)
    value["evaluate"]["benchmarks"] = [benchmark_task.SETTINGS | {"task": str(task), "num_fewshot": 1}]
    path.write_text(yaml.safe_dump(value, sort_keys=False))
    run(repository)
    scores = json.loads((repository / "metrics/evaluate.json").read_text())
    assert list(scores["benchmarks"]) == ["teacher", "init", "sft", "distilled"]
    assert scores["limited_benchmarks"] == {}
    samples = rows(repository / "data/evaluated/benchmark_samples.jsonl")
    assert [row["model"] for row in samples[::5]] == ["teacher", "init", "sft-7", "distilled-7"]
    mean = sum(row["scores"]["acc"] for row in samples[:5]) / 5
    assert scores["benchmarks"]["teacher"]["colours"]["scores"]["acc,none"] == mean
    value["evaluate"]["benchmark_limit"] = 2
    path.write_text(yaml.safe_dump(value, sort_keys=False))
    run(repository)
    scores = json.loads((repository / "metrics/evaluate.json").read_text())
    assert scores["benchmarks"] == {}
    limited = scores["limited_benchmarks"]["distilled"]["colours"]
    assert (limited["limited"], limited["documents"], limited["total_documents"]) == (True, 2, 5)
    assert "colours" not in (repository / "metrics/metrics.json").read_text()
    path.write_text(before)
