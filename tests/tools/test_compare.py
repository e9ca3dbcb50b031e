"""Comparison of two revisions: the verdict, or the reason why there is none."""

import json
import subprocess
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml

from distill.core.errors import UserError
from distill.evaluation.metrics import metrics
from distill.evaluation.multiple_choice import CHANCE
from tools import compare, comparison_figure, comparison_text, revision

ROOT = Path(__file__).parents[2]
SIZE = {"parameters": 1000, "bytes": 4000}
PARAMS = {
    "data_seed": 20,
    "training_seeds": [1],
    "evaluate": {"bootstrap_resamples": 500, "max_samples": 80},
    "train.distilled": {"loss": "forward_kl"},
}
ITEMS = 80
# what makes an item hard for every model: pairing takes it out
NATS = np.random.default_rng(0).uniform(1, 4, ITEMS)


def scores(model: str, better: float = 0.0, noise: int = 1, items: int = ITEMS) -> pd.DataFrame:
    """The items of a model: `better` nats per token fewer than hardness and a little noise."""
    draw = np.random.default_rng(noise)
    tokens = np.arange(items) % 30 + 10.0
    return pd.DataFrame(
        {
            "model": model,
            "item": [f"topic-{place}@teacher" for place in range(items)],
            "correct": (draw.uniform(size=items) < 0.7).astype(float),
            "correct_norm": 1.0,
            "nll": tokens * (NATS[:items] - better + draw.normal(scale=0.05, size=items)),
            "tokens": tokens,
            "bytes": tokens * 4,
            "top1_tokens": tokens // 2,
            "rouge_l": [0.5 if place % 4 == 0 else np.nan for place in range(items)],
            "matching_tokens": [3 if place % 4 == 0 else np.nan for place in range(items)],
            "longer_length": [9 if place % 4 == 0 else np.nan for place in range(items)],
        }
    )


def results(folder: Path, student: pd.DataFrame, params: dict, processor: str = "A", gain: float = 2.0) -> None:
    """Writes and commits what a run leaves."""
    teacher = scores("teacher", items=len(student))
    files = {
        revision.ITEMS: pd.concat([teacher, student]).to_csv(index=False),
        revision.METRICS: json.dumps({"distilled": SIZE, "teacher": SIZE, "goals": {"latency_gain": gain}}),
        f"{revision.ENVIRONMENT}/evaluate.json": json.dumps({"processor": {"model": processor}, "threads": 2}),
        revision.LOCK: yaml.safe_dump(
            {
                "schema": "2.0",
                "stages": {
                    "evaluate": {
                        "cmd": "python -m stages.evaluate",
                        "deps": [{"path": revision.TEST, "hash": "md5", "md5": "0" * 32, "size": 1}],
                        "params": {"params.yaml": params},
                    }
                },
            }
        ),
    }
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(content)
    git(folder, "add", "-A")
    git(folder, "commit", "-qm", "Results")


def git(folder: Path, *arguments: str) -> None:
    who = ["-c", "user.name=t", "-c", "user.email=t@t"]
    subprocess.run(["git", *who, *arguments], cwd=folder, check=True, capture_output=True)


@pytest.fixture(scope="module")
def branches(tmp_path_factory) -> Path:
    """A repository with branches, all compared with `main`."""
    folder = tmp_path_factory.mktemp("branches")
    git(folder, "init", "-q", "-b", "main")
    (folder / ".dvc").mkdir()
    (folder / ".dvc/config").write_text("[core]\n    analytics = false\n")
    results(folder, scores("distilled"), PARAMS)
    reverse = PARAMS | {"train.distilled": {"loss": "reverse_kl"}}
    made = {
        "better": (scores("distilled", better=0.1, noise=2), reverse, "A"),
        "worse": (scores("distilled", better=-0.1, noise=2), reverse, "A"),
        "noise": (scores("distilled", noise=2), PARAMS, "A"),
        "elsewhere": (scores("distilled"), PARAMS, "B"),
        "fewer": (scores("distilled", items=60), PARAMS, "A"),
        "seed": (scores("distilled"), PARAMS | {"data_seed": 21}, "A"),
        "again": (scores("distilled", better=0.1, noise=2), PARAMS | {"training_seeds": [2]}, "A"),
        "both": (scores("distilled", better=0.1, noise=2), reverse | {"training_seeds": [2]}, "A"),
    }
    for name, (student, params, processor) in made.items():
        git(folder, "switch", "-qc", name, "main")
        results(folder, student, params, processor)
    git(folder, "switch", "-q", "main")
    return folder


def test_items_of_older_code_are_one_message(branches):
    git(branches, "switch", "-qc", "older", "main")
    path = branches / revision.ITEMS
    path.write_text(path.read_text().replace("top1_tokens", "agree").replace("nll", "nats"))
    git(branches, "commit", "-qam", "Older names")
    git(branches, "switch", "-q", "main")
    with pytest.raises(UserError, match=r"items\.csv of older must have .* got none named nll, top1_tokens"):
        comparison(branches, "older", "main")


def comparison(folder: Path, first: str, second: str | None, model: str = "distilled") -> dict:
    return compare.compare(revision.read(folder, first), revision.read(folder, second), model)


@pytest.mark.parametrize(
    ("branch", "verdict"), [("better", "better"), ("worse", "worse"), ("noise", "within noise")]
)  # fmt: skip
def test_a_real_change_is_told_from_noise(branches, branch, verdict):
    found = comparison(branches, "main", branch)
    row = found["metrics"]["perplexity"]
    assert row["verdict"] == verdict
    assert row["difference"] == pytest.approx(row["values"][1] - row["values"][0])
    assert row["ci_low"] <= row["difference"] <= row["ci_high"]
    assert found["metrics"]["top1_agreement"]["verdict"] == "within noise"
    assert found["metrics"]["parameters"]["verdict"] == "the same"
    assert found["metrics"]["latency_gain"]["verdict"] == "not tested"
    expected = {} if branch == "noise" else {"train.distilled.loss": ("forward_kl", "reverse_kl")}
    assert found["params"] == expected
    assert found["not_paired"] is None


def test_a_change_of_the_training_seed_alone_is_noise(branches):
    again, both = (comparison(branches, "main", name) for name in ("again", "both"))
    row = again["metrics"]["perplexity"]
    assert row["ci_high"] < 0, "the difference is too small to be taken for real, so that it proves nothing"
    assert (row["verdict"], again["only_seeds_differ"]) == ("within noise", True)
    assert "only the training seeds differ" in comparison_text.text(again)
    assert (both["metrics"]["perplexity"]["verdict"], both["only_seeds_differ"]) == ("better", False)


def test_sources_are_what_stages_read_and_none_writes():
    def stage(deps: list[str], outs: list[str]) -> dict:
        return {
            kind: [{"path": path, "md5": path} for path in paths] for kind, paths in (("deps", deps), ("outs", outs))
        }

    lock = {
        "a": stage(["code.py"], ["data/a/rows", "metrics/a.json"]),
        "b": stage(["data/a/rows", "metrics", "metrics/latency.json", "b.py"], []),
    }
    assert revision.locked_sources(lock) == {"b.py": "b.py", "code.py": "code.py"}


@pytest.mark.parametrize(
    ("branch", "words"), [("fewer", "80 and 60, 60 in both"), ("seed", "another data_seed (20 and 21)")]
)  # fmt: skip
def test_another_test_set_is_not_paired(branches, branch, words):
    found = comparison(branches, "main", branch)
    assert words in found["not_paired"]
    tested = [name for name in found["metrics"] if name not in ("parameters", "bytes")]
    assert {found["metrics"][name]["verdict"] for name in tested} == {"not tested"}
    assert all(row["ci_low"] is None for row in found["metrics"].values())
    assert "not tested: " in comparison_text.text(found)
    with pytest.raises(UserError, match="none to draw"):
        comparison_figure.draw(found, branches / "none.png")


def test_different_environments_give_a_warning(branches):
    found = comparison(branches, "main", "elsewhere")
    assert found["environment"] == {".evaluate.processor.model": ("A", "B")}
    assert "warning: the environments differ" in comparison_text.text(found)
    assert "evaluate.processor.model: 'A' -> 'B'" in comparison_text.text(found)
    assert "warning" not in comparison_text.text(comparison(branches, "main", "noise"))


def test_one_revision_is_compared_with_the_working_tree(branches):
    found = comparison(branches, "better", None)
    assert found["revisions"] == ["better", "the working tree"]
    assert found["metrics"]["perplexity"]["verdict"] == "worse"


@pytest.mark.parametrize(
    ("name", "words"), [("nowhere", "must be a branch.*got 'nowhere'"), ("empty", "has no results")]
)
def test_a_revision_without_results_is_refused(branches, name, words):
    if name == "empty":
        git(branches, "switch", "-q", "--orphan", "empty")
        git(branches, "commit", "-q", "--allow-empty", "-m", "Nothing")
        git(branches, "switch", "-q", "main")
    with pytest.raises(UserError, match=words):
        revision.read(branches, name)


def test_the_command_prints_json_and_draws_a_figure(branches, monkeypatch, capsys):
    monkeypatch.chdir(branches)
    monkeypatch.setattr("sys.argv", ["compare", "main", "better", "--json", "--figure", "difference.png"])
    compare.main()
    found = json.loads(capsys.readouterr().out)
    assert found["metrics"]["perplexity"]["verdict"] == "better"
    assert (branches / "difference.png").read_bytes().startswith(b"\x89PNG")
    (branches / "difference.png").unlink()


def test_scores_equal_those_of_stage_evaluate(finished):
    scores = json.loads((finished / "metrics/evaluate.json").read_text())["models"]
    items = pd.read_csv(finished / "metrics/items.csv")
    for model, written in scores.items():
        rows = items[items["model"] == model]
        for name, metric in metrics(CHANCE).items():
            assert metric.value(*metric.ratio(rows)) == pytest.approx(written[name]["value"], rel=1e-4), (model, name)
