"""The whole pipeline by real commands on the tiny experiment: reproduced, resumed, changed, broken on purpose."""

import json
import os
import shutil
import signal
import subprocess
from pathlib import Path

import pytest
import tiny
from chat_server import api_teacher, chat_server
from forks import stage
from repositories import (
    copy_repository,
    copy_with_cache,
    divergence,
    edit_params,
    output_hashes,
    stage_command,
    stop_command,
    without_latency,
)

from distill.evaluation.goals import GOALS
from distill.generation.api import capabilities

EPOCHS = "train.optimization.num_train_epochs"


def test_a_run_writes_the_main_table_in_its_fixed_shape(finished):
    table = json.loads((finished / "metrics/metrics.json").read_text())
    assert list(table) == ["teacher", "init", "sft", "distilled", "goals"]
    for name in ("teacher", "init", "sft", "distilled"):
        assert list(table[name]) == [
            "accuracy", "accuracy_ci_low", "accuracy_ci_high", "accuracy_above_chance",
            "perplexity", "top1_agreement", "rouge_l", "parameters", "bytes",
        ]  # fmt: skip
        assert table[name]["accuracy_ci_low"] <= table[name]["accuracy"] <= table[name]["accuracy_ci_high"]
        assert isinstance(table[name]["parameters"], int)
    goals = table["goals"]
    assert list(goals) == [
        "accuracy_ratio", "accuracy_ratio_above_chance", "perplexity", "compression_ratio", "latency_gain", "met",
    ]  # fmt: skip
    assert goals["met"] == sum(goal.met(goals[goal.name]) for goal in GOALS)
    assert goals["perplexity"] == table["distilled"]["perplexity"]
    assert goals["compression_ratio"] == pytest.approx(
        table["distilled"]["parameters"] / table["teacher"]["parameters"], rel=1e-5
    )
    assert goals["latency_gain"] == round(goals["latency_gain"], 1)


def test_training_helps_on_topics_that_it_never_saw(finished):
    table = json.loads((finished / "metrics/metrics.json").read_text())
    assert table["sft"]["perplexity"] < table["init"]["perplexity"]
    assert table["teacher"]["perplexity"] < table["sft"]["perplexity"]


def test_nothing_of_a_held_out_topic_is_in_training(finished):
    def topics(name: str) -> set[str]:
        return {json.loads(line)["topic"] for line in (finished / f"data/clean/{name}.jsonl").read_text().splitlines()}

    train, validation, test = topics("train"), topics("validation"), topics("test")
    assert train
    assert validation
    assert test
    assert not train & test
    assert not train & validation
    assert not validation & test


def test_a_second_run_does_nothing(finished, tmp_path):
    folder = copy_with_cache(finished, tmp_path / "repo")
    done = tiny.run(folder, "dvc", "repro")
    assert "Data and pipelines are up to date" in done.stdout
    assert output_hashes(folder) == output_hashes(finished)


def test_dvc_shows_metrics_params_plots_and_the_graph(finished, tmp_path):
    folder = copy_with_cache(finished, tmp_path / "repo")
    assert "accuracy_ratio" in tiny.run(folder, "dvc", "metrics", "show").stdout
    assert "distilled@7" in tiny.run(folder, "dvc", "dag").stdout
    assert "html" in tiny.run(folder, "dvc", "plots", "show").stdout
    assert tiny.run(folder, "dvc", "params", "diff").returncode == 0
    assert "up to date" in tiny.run(folder, "dvc", "status").stdout


def stages_to_run(folder: Path) -> set[str]:
    """The stages that DVC calls stale, and those after them."""
    lines = tiny.run(folder, "dvc", "repro", "--dry", "--force-downstream").stdout.splitlines()
    return {line.split("'")[1] for line in lines if line.startswith("Running stage")}


def test_a_change_of_weights_runs_neither_targets_nor_init(finished, tmp_path):
    folder = copy_with_cache(finished, tmp_path / "repo")
    edit_params(folder, {"weight.kind": "shuffled"})
    assert stages_to_run(folder) == {"weight", "sft@7", "distilled@7", "evaluate", "plot"}


def test_a_change_of_the_loss_does_not_run_sft(finished, tmp_path):
    folder = copy_with_cache(finished, tmp_path / "repo")
    edit_params(folder, {"train.distilled.loss": divergence("jsd", "bucket")})
    assert stages_to_run(folder) == {"distilled@7", "evaluate", "plot"}


@pytest.mark.slow
def test_a_run_interrupted_by_ctrl_c_resumes(finished, tmp_path):
    folder = copy_repository(finished, tmp_path / "repo")
    shutil.rmtree(folder / "models/sft-7")
    output = stop_command(folder, ["dvc", "repro"], by=signal.SIGINT).stdout
    assert "Traceback" not in output
    assert "run the same command again" in output
    assert "resuming from checkpoint" in tiny.run(folder, "dvc", "repro").stdout
    assert without_latency(output_hashes(folder)) == without_latency(output_hashes(finished))


@pytest.mark.slow
def test_a_second_repro_at_the_same_time_is_refused(finished, tmp_path):
    folder = copy_repository(finished, tmp_path / "repo")
    (folder / "metrics/items.csv").unlink()
    first = subprocess.Popen(
        ["dvc", "repro"],
        cwd=folder,
        env=tiny.environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert first.stdout
    for line in first.stdout:
        if line.startswith("> python -m stages.evaluate"):
            break
    second = tiny.run(folder, "dvc", "repro", check=False)
    assert second.returncode != 0
    assert "is busy, it is being blocked by" in second.stderr
    assert f"(PID {first.pid})" in second.stderr
    assert "Traceback" not in second.stderr
    rest, _ = first.communicate(timeout=240)
    assert first.returncode == 0, rest
    assert "up to date" in tiny.run(folder, "dvc", "status").stdout
    assert without_latency(output_hashes(folder)) == without_latency(output_hashes(finished))


def test_journaled_responses_are_not_queried_again(tmp_path):
    with chat_server() as server:
        teacher = api_teacher(server.url)
        folder = tiny.repository(tmp_path / "repo", teachers=[*tiny.params()["teachers"], teacher])
        refused = tiny.run(folder, *stage_command("generate"), check=False)
        assert refused.returncode == 1
        assert "TINY_KEY, which is not set" in refused.stderr
        secret = "-".join(("sk", "of", "the", "whole", "stage"))
        os.environ["TINY_KEY"] = secret
        try:
            tiny.run(folder, *stage_command("generate"))
            first = (folder / "data/raw/responses.jsonl").read_bytes()
            asked = len(server.bodies)
            stage(folder, "generate")
        finally:
            del os.environ["TINY_KEY"]
    prompts = len(tiny.TOPICS) * len(tiny.FORMS)
    assert asked == prompts + len(capabilities.SEEDS) == len(server.bodies)
    assert (folder / "data/raw/responses.jsonl").read_bytes() == first
    assert len(first.splitlines()) == 2 * prompts
    for path in folder.rglob("*"):
        assert not path.is_file() or secret.encode() not in path.read_bytes(), path


def test_rows_without_log_probabilities_have_a_neutral_weight(finished, tmp_path):
    folder = copy_repository(finished, tmp_path / "repo")
    path = folder / "data/clean/train.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    rows[0]["logprobs"] = None
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    stage(folder, "weight")
    weighted = [json.loads(line) for line in (folder / "data/weighted/train.jsonl").read_text().splitlines()]
    assert weighted[0]["confidence"] is None
    assert len(weighted) == len(rows)
    assert json.loads((folder / "metrics/weight.json").read_text())["without_confidence"] == 1


@pytest.mark.parametrize(
    ("name", "mistake", "words"),
    [
        ("clean", lambda f: (f / "data/raw/responses.jsonl").unlink(), "it comes from stage generate"),
        ("weight", lambda f: (f / "data/clean/train.jsonl").unlink(), "it comes from stage clean"),
        ("train sft 7", lambda f: (f / "data/weighted/train.jsonl").unlink(), "it comes from stage weight"),
        ("train distilled 7", lambda f: shutil.rmtree(f / "data/targets"), "stage targets"),
        ("evaluate", lambda f: shutil.rmtree(f / "models/sft-7"), "sft@7 writes it"),
        ("plot", lambda f: (f / "metrics/evaluate.json").unlink(), "it comes from stage evaluate"),
        ("clean", lambda f: (f / "data/raw/responses.jsonl").write_text("{oops\n"), "line 1 is not JSON"),
        ("generate", lambda f: (f / "data/prompts/tiny.jsonl").write_text('{"id": "a"}\n'), "is not a prompt"),
        ("generate", lambda f: edit_params(f, {EPOCHS: -1}), EPOCHS),
        ("generate", lambda f: edit_params(f, {"teachers.0.model": "nowhere/at-all"}), "be loaded"),
        ("generate", lambda f: edit_params(f, {"teachers.0.sha256": "0" * 64}), "must have sha256 000"),
        ("train distilled 7", lambda f: edit_params(f, {"targets.top_k": 3}), "8 (expected 3)"),
        ("init", lambda f: edit_params(f, {"init.layers": 9}), "must be at most 4, the teacher's, got 9"),
        ("init", lambda f: edit_params(f, {"init.vocab_size": 300}), None),
    ],
)  # fmt: skip
def test_a_users_mistake_ends_in_one_short_message(finished, tmp_path, name, mistake, words):
    folder = copy_repository(finished, tmp_path / "repo")
    mistake(folder)
    done = stage(folder, name, check=False)
    if words is None:
        assert done.returncode == 0
        return
    assert done.returncode == 1
    assert words in done.stderr
    assert "Traceback" not in done.stderr
    assert len(done.stderr.splitlines()) < 24


def test_checkpoints_of_other_params_are_not_resumed(finished, tmp_path):
    folder = copy_repository(finished, tmp_path / "repo")
    stop_command(folder, stage_command("train sft 7"))
    assert list((folder / ".distill/checkpoints").glob("sft-*/*/checkpoint-*/complete"))
    edit_params(folder, {"train.optimization.learning_rate": 0.002})
    assert "resuming from" not in stage(folder, "train sft 7").stdout
    edit_params(folder, {"train.optimization.learning_rate": 1e-3})
    assert "resuming from" in stage(folder, "train sft 7").stdout
    assert without_latency(output_hashes(folder)) == without_latency(output_hashes(finished))


@pytest.mark.slow
def test_an_experiment_in_a_copy_uses_the_owners_journal(finished, tmp_path):
    owner = copy_with_cache(finished, tmp_path / "owner")
    done = tiny.run(owner, "dvc", "exp", "run", "--temp", "-S", "clean.min_words=2", "generate", "clean")
    assert "Ran experiment(s)" in done.stdout
    journals = list((owner / ".distill/journal").iterdir())
    assert len(journals) == 1
