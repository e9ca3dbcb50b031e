"""Several training seeds: their mean and interval, and the pipeline with a seed added and removed."""

import hashlib
import json
import shutil
from pathlib import Path

import forks
import numpy as np
import pandas as pd
import pytest
import tiny
import yaml

from distill.core.errors import UserError
from distill.core.files import write_json
from distill.evaluation.bootstrap import Estimate, paired_difference, ratio_interval
from distill.evaluation.metrics import metrics
from distill.evaluation.multiple_choice import CHANCE
from distill.evaluation.seeds import mean_benchmarks, summarize_seeds
from distill.params.loading import check_params
from distill.students.runs import Run, require_model, students, weights_hash

METRICS = metrics(CHANCE)


def drawn(draw: np.random.Generator, seeds: int, items: int, spread: float) -> np.ndarray:
    """Scores of the same items under seeds, [seeds, items]: the truth is 0, seeds differ by `spread`, items by 1."""
    return spread * draw.normal(size=(seeds, 1)) + draw.normal(size=items) + 0.3 * draw.normal(size=(seeds, items))


def test_one_seed_is_the_bootstrap_over_items():
    values = np.random.default_rng(0).gamma(2.0, size=40)
    flat, one = (ratio_interval(array, np.ones_like(array), 500, 3) for array in (values, values[None]))
    assert flat == one


def test_the_interval_over_seeds_holds_the_truth_more_often():
    draw = np.random.default_rng(1)
    held = {"both": 0, "items": 0}
    for trial in range(200):
        scores = drawn(draw, 6, 100, spread=0.3)
        both = ratio_interval(scores, np.ones_like(scores), 200, trial)
        items = ratio_interval(scores[0], np.ones(100), 200, trial)
        held["both"] += both.ci_low <= 0 <= both.ci_high
        held["items"] += items.ci_low <= 0 <= items.ci_high
    assert held["both"] >= 180, held
    assert held["items"] <= 130, held


def test_the_value_is_the_mean_of_the_scores_of_the_seeds():
    nats, tokens = np.array([[2.0, 2.0], [4.0, 4.0]]), np.full((2, 2), 2.0)
    found = ratio_interval(nats, tokens, 100, 0, np.exp)
    assert found.value == pytest.approx((np.exp(1) + np.exp(2)) / 2)


def test_a_difference_as_large_as_between_seeds_is_noise():
    draw = np.random.default_rng(2)
    base = draw.normal(size=200)
    seeds = np.array([-0.5, -0.1, 0.1, 0.5])[:, None]
    one, other = base + seeds, base + seeds[[3, 0, 2, 1]]
    ones = np.ones(one.shape)
    single = paired_difference((one[0], ones[0]), (other[0], ones[0]), 300, 0)
    several = paired_difference((one, ones), (other, ones), 300, 0, same_seeds=False)
    assert single.ci_low > 0
    assert several.ci_low < 0 < several.ci_high


def test_the_same_seeds_are_paired():
    base = np.random.default_rng(3).normal(size=100) + np.array([-1.0, 0.0, 1.0])[:, None]
    ones = np.ones(base.shape)
    paired, apart = (
        paired_difference((base, ones), (base + 0.1, ones), 300, 0, same_seeds=same) for same in (True, False)
    )
    assert paired.ci_low == pytest.approx(0.1)
    assert apart.ci_low < 0


def items(correct: list[float]) -> pd.DataFrame:
    one = {"correct_norm": 1.0, "nll": 1.0, "tokens": 1, "bytes": 1, "top1_tokens": 1, "rouge_l": 1.0}
    one |= {"matching_tokens": 1, "longer_length": 1}
    return pd.DataFrame([{"correct": value} | one for value in correct])


def test_the_summary_has_mean_and_standard_deviation_of_a_sample():
    scores = dict.fromkeys(METRICS, Estimate(0.5, 0.2, 0.8))
    two = summarize_seeds([items([1.0, 0.0, 0.0, 0.0]), items([1.0, 1.0, 1.0, 0.0])], scores, CHANCE)["accuracy"]
    assert two == {"seeds": 2, "mean": 0.5, "sd": pytest.approx(0.5 / 2**0.5), "ci_low": 0.2, "ci_high": 0.8}
    assert summarize_seeds([items([1.0])], scores, CHANCE)["accuracy"]["sd"] is None
    tasks = [{"a": {"documents": 3, "scores": {"acc,none": value}}} for value in (0.25, 0.75)]
    assert mean_benchmarks(tasks) == {"a": {"documents": 3, "scores": {"acc,none": 0.5}}}


def test_a_missing_or_other_model_is_refused_with_its_stage(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run = Run("sft", 3)
    assert [one.name for one in students([3, 1])] == ["init", "sft-3", "sft-1", "distilled-3", "distilled-1"]
    with pytest.raises(UserError, match=r"models/sft-3 has no model.*dvc repro sft@3"):
        require_model(run)
    run.folder.mkdir(parents=True)
    (run.folder / "model.safetensors").write_bytes(b"one")
    with pytest.raises(UserError, match=r"metrics/train/sft-3\.json is missing; it comes from stage sft@3"):
        require_model(run)
    write_json(run.record, {"weights": weights_hash(run.folder)})
    require_model(run)
    (run.folder / "model.safetensors").write_bytes(b"other")
    with pytest.raises(UserError, match=r"not the model that metrics/train/sft-3\.json describes"):
        require_model(run)


def test_seeds_are_at_least_one_and_each_once():
    for seeds, words in (
        ([], "training_seeds: list should have at least 1"),
        ([1, 1], r"training_seeds: two are the same, got \[1, 1"),
    ):
        with pytest.raises(UserError, match=words):
            check_params(tiny.params(training_seeds=seeds))


def hashes(folder: Path) -> dict[str, str]:
    paths = [*sorted(folder.glob("models/*/model.safetensors")), *sorted(folder.glob("metrics/live/**/*.tsv"))]
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in paths}


def set_seeds(folder: Path, seeds: list[int]) -> None:
    value = yaml.safe_load((folder / "params.yaml").read_text())
    (folder / "params.yaml").write_text(yaml.safe_dump(value | {"training_seeds": seeds}, sort_keys=False))


def ran(done: str) -> list[str]:
    return [line.removeprefix("> python -m stages.") for line in done.splitlines() if line.startswith("> ")]


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_an_added_seed_is_trained_and_a_removed_one_ignored(committed, tmp_path):
    folder = tmp_path / "repository"
    shutil.copytree(committed, folder)
    before, one = hashes(folder), json.loads((folder / "metrics/evaluate.json").read_text())
    done = tiny.run(folder, "dvc", "exp", "run", "--set-param", "training_seeds=[7,8]", timeout=600)
    assert ran(done.stdout) == ["train sft", "train distilled", "evaluate", "plot"]
    after = hashes(folder)
    assert before.items() <= after.items()
    for variant in ("sft", "distilled"):
        assert after[f"models/{variant}-7/model.safetensors"] != after[f"models/{variant}-8/model.safetensors"]
    scores = json.loads((folder / "metrics/evaluate.json").read_text())
    table = json.loads((folder / "metrics/metrics.json").read_text())
    found = pd.read_csv(folder / "metrics/items.csv")
    assert found.groupby("model")["seed"].nunique().to_dict() == {"distilled": 2, "init": 0, "sft": 2, "teacher": 0}
    each = [
        METRICS["perplexity"].value(*METRICS["perplexity"].ratio(part))
        for _, part in found[found["model"] == "distilled"].groupby("seed")
    ]
    assert table["distilled"]["perplexity"] == pytest.approx(np.mean(each), rel=1e-4)
    assert scores["seeds"]["distilled"]["perplexity"]["sd"] == pytest.approx(np.std(each, ddof=1), rel=1e-3)
    assert scores["models"]["init"] == one["models"]["init"]
    assert len(pd.read_csv(folder / "metrics/seeds.csv")) == 2 * len(METRICS)
    compared = json.loads(tiny.run(folder, "python", "-m", "tools.compare", "HEAD", "--json").stdout)
    assert compared["seeds"] == [[7], [7, 8]]
    assert compared["environment"] == {}
    shutil.rmtree(folder / "models/sft-8")
    refused = tiny.run(folder, "python", "-m", "stages.evaluate", check=False)
    assert "models/sft-8 has no model: stage sft@8 writes it" in refused.stderr
    set_seeds(folder, [7])
    assert ran(tiny.run(folder, "dvc", "repro").stdout) == ["evaluate", "plot"]
    assert json.loads((folder / "metrics/evaluate.json").read_text()) == one
    assert (folder / "metrics/train/distilled-8.json").exists(), "nothing was left behind, so that it proves nothing"


def test_the_same_seed_gives_the_same_bytes(finished, tmp_path):
    folder = tmp_path / "repository"
    shutil.copytree(finished, folder, ignore=shutil.ignore_patterns("cache", "tmp", ".distill"))
    before = hashes(folder)
    shutil.rmtree(folder / "models/sft-7")
    forks.stage(folder, "train sft 7")
    assert hashes(folder) == before


@pytest.mark.parametrize(
    ("name", "code", "words"),
    [
        ("train sft", 1, "sft needs a training seed, a whole number, got stage ''"),
        ("train init 7", 2, "argument variant: invalid choice: 'init'"),
    ],
)
def test_only_trained_students_have_a_seed(tmp_path, name, code, words):
    done = forks.stage(tmp_path, name, check=False)
    assert done.returncode == code
    assert words in done.stderr
