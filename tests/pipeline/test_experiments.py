"""DVC experiments in a finished repository: queue, run in a copy, branch, compare."""

import json
import shutil
from pathlib import Path

import pytest
import tiny

# three experiments, after the pipeline of the fixture
pytestmark = [pytest.mark.slow, pytest.mark.timeout(900), pytest.mark.xdist_group("experiments")]


@pytest.fixture(scope="module")
def queued(committed, tmp_path_factory) -> Path:
    """A repository with three finished experiments as branches: a loss, a learning rate far too high, a seed."""
    folder = tmp_path_factory.mktemp("experiments") / "repository"
    shutil.copytree(committed, folder)
    tiny.run(folder, "dvc", "exp", "run", "--queue", "--name", "reverse", "-S", "train.distilled.loss.kind=reverse_kl")
    tiny.run(folder, "dvc", "exp", "run", "--queue", "--name", "diverged", "-S", "train.optimization.learning_rate=0.3")
    tiny.run(folder, "dvc", "exp", "run", "--queue", "--name", "seed", "-S", "training_seeds=[8]")
    tiny.run(folder, "dvc", "exp", "run", "--run-all", timeout=480)
    for name in ("reverse", "diverged", "seed"):
        tiny.run(folder, "dvc", "exp", "branch", name, f"{name}-branch")
    return folder


def test_a_queued_experiment_leaves_the_working_tree_alone(queued):
    assert tiny.run(queued, "git", "status", "--porcelain").stdout == ""
    changed = tiny.run(queued, "git", "diff", "--name-only", "HEAD", "reverse-branch").stdout.split()
    assert {"params.yaml", "dvc.lock", "metrics/train/distilled-7.json", "metrics/items.csv"} <= set(changed)
    assert not {"metrics/generate.json", "metrics/train/sft-7.json"} & set(changed)
    trained = json.loads(tiny.run(queued, "git", "show", "reverse-branch:metrics/train/distilled-7.json").stdout)
    assert trained["loss"] == "reverse_kl"


def test_experiments_are_shown_with_params_and_metrics(queued):
    table = tiny.run(queued, "dvc", "exp", "show", "--only-changed", "--md").stdout.splitlines()
    header, reverse = table[0], next(line for line in table if "reverse" in line)
    assert "train.distilled.loss.kind" in header
    assert "perplexity" in header
    assert "reverse_kl" in reverse


def compare(folder: Path, branch: str, model: str) -> dict:
    command = ["python", "-m", "tools.compare", "HEAD", branch, "--json", "--model", model]
    return json.loads(tiny.run(folder, *command).stdout)


def test_a_student_that_diverges_is_worse(queued):
    found = compare(queued, "diverged-branch", "distilled")
    assert list(found["params"]) == ["train.optimization.learning_rate"]
    assert found["not_paired"] is None
    row = found["metrics"]["perplexity"]
    assert row["verdict"] == "worse"
    assert 0 < row["ci_low"] < row["difference"]
    assert found["metrics"]["parameters"]["verdict"] == "the same"


def test_another_training_seed_alone_is_within_noise(queued):
    found = compare(queued, "seed-branch", "distilled")
    assert found["params"] == {"training_seeds": [[7], [8]]}
    assert found["seeds"] == [[7], [8]]
    row = found["metrics"]["perplexity"]
    assert row["difference"] != 0, "another seed changed nothing, so this test proves nothing"
    assert row["verdict"] == "within noise"


def test_an_experiment_is_compared_with_its_base(queued):
    student, control = (compare(queued, "reverse-branch", model) for model in ("distilled", "sft"))
    assert student["params"] == {"train.distilled.loss.kind": ["forward_kl", "reverse_kl"]}
    assert student["not_paired"] is None
    changed, unchanged = (found["metrics"]["perplexity"] for found in (student, control))
    assert changed["ci_low"] < changed["difference"] < changed["ci_high"]
    assert (unchanged["difference"], unchanged["verdict"]) == (0, "within noise")
    assert student["environment"] == {}


def test_an_experiment_in_a_temporary_copy_uses_the_journal(queued):
    (journal,) = (queued / ".distill/journal").glob("*.jsonl")
    before = len(journal.read_text().splitlines())
    done = tiny.run(queued, "dvc", "exp", "run", "--temp", "--name", "again", "-S", "generate.batch_size=4", "generate")
    assert "Ran experiment(s)" in done.stdout
    new = len(journal.read_text().splitlines()) - before
    assert new == len(tiny.TOPICS) * len(tiny.FORMS), "the copy's responses are not in the journal of its owner"
