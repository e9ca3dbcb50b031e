"""The comparison of methods: the plan, the scores, and one real comparison of two methods."""

import math
import shutil

import pandas as pd
import pytest
import tiny
import torch
import yaml

from distill.core.errors import UserError
from distill.params.loading import PATH, check_params
from distill.reporting import methods_table
from distill.targets import store
from distill.targets import stored as stored_targets
from tools.methods import __main__ as command
from tools.methods import plan, scores, student

PLAN = {
    "profile": {"train.optimization.num_train_epochs": 1},
    "seeds": [7, 8],
    "controls": ["sft"],
    "methods": {"sft": {"variant": "sft"}, "reverse_kl": {"train.distilled.loss.kind": "reverse_kl"}},
}


def test_the_shipped_methods_are_valid_and_differ():
    base = yaml.safe_load((tiny.ROOT / PATH).read_text())
    found = plan.load_methods(base, yaml.safe_load((tiny.ROOT / plan.METHODS).read_text()), [])
    assert [method.name for method in found][:2] == ["sft", "forward_kl"]
    assert all(len(method.params.training_seeds) >= 3 for method in found)
    chosen = [(method.variant, method.raw) for method in found]
    assert all(entry not in chosen[:index] for index, entry in enumerate(chosen)), "two methods are the same"


def test_a_method_changes_its_keys_on_top_of_the_profile():
    base = tiny.params()
    (found,) = plan.load_methods(base, PLAN, ["reverse_kl"])
    assert found.variant == "distilled"
    assert found.raw["train"]["distilled"]["loss"] == base["train"]["distilled"]["loss"] | {"kind": "reverse_kl"}
    assert found.raw["train"]["optimization"] == base["train"]["optimization"] | {"num_train_epochs": 1}
    assert (found.raw["training_seeds"], base["training_seeds"]) == ([7, 8], [7])
    assert found.raw["generate"] == base["generate"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"train.distiled.loss.kind": "jsd"}, "params.yaml has no train.distiled.loss.kind"),
        ({"teachers.3.prompt_fraction": 0.5}, "params.yaml has no teachers.3.prompt_fraction"),
        ({"train.distilled.loss.kind": "kl"}, "method wrong: .*train.distilled.loss"),
    ],
)
def test_an_error_in_the_plan_names_the_method_or_key(changes, message):
    with pytest.raises(UserError, match=f"(?s){message}"):
        plan.load_methods(tiny.params(), PLAN | {"methods": {"wrong": changes}}, [])


@pytest.mark.parametrize("jobs", ["0", "-1"])
def test_zero_jobs_are_refused(monkeypatch, jobs):
    monkeypatch.chdir(tiny.ROOT)
    monkeypatch.setattr("sys.argv", ["methods", "sft", "--jobs", jobs])
    with pytest.raises(UserError, match=f"--jobs must be at least 1, got {jobs}"):
        command.main()


def test_an_unknown_method_is_refused_with_the_known_ones():
    with pytest.raises(UserError, match="has no jdd; it has sft, reverse_kl"):
        plan.load_methods(tiny.params(), PLAN, ["jdd"])


def test_bytes_a_token_are_file_sizes_over_response_tokens(tmp_path):
    chosen = {"profile": {}, "seeds": [7], "methods": {"sft": {"variant": "sft"}, "forward_kl": {}}}
    sft, stored = plan.load_methods(tiny.params(), chosen, [])
    source = store.Source("t", "m", None, None, "tok", "tmpl", "data", "float32", "top_k", 8)
    samples = [(name, stored_targets.top_k(torch.randn(count, 30), 8)) for name, count in (("a", 600), ("b", 400))]
    store.write_targets(tmp_path, source, samples)
    size = (tmp_path / "00000.safetensors").stat().st_size
    assert student.bytes_a_token(tmp_path, stored) == size / 1000 == pytest.approx(6 * 8 + 4, rel=0.02)
    assert student.bytes_a_token(tmp_path, sft) is None
    (tmp_path / "layers").mkdir()
    states = [(name, stored_targets.StoredStates(torch.zeros(len(rows), 2, 16).bfloat16())) for name, rows in samples]
    store.write_targets(tmp_path / "layers", store.describe_layers(source, [0, 1]), states)
    assert student.bytes_a_token(tmp_path, stored) == pytest.approx(6 * 8 + 4 + 2 * 2 * 16, rel=0.02)


def test_an_online_teacher_stores_no_bytes(tmp_path):
    changes = {
        "targets": {
            "kind": "online",
            "teacher": "tiny",
            "batch_tokens": 64,
            "layers": None,
            "score_without_prompt": False,
        },
        "train.distilled.loss.tail": None,
    }
    chosen = {"profile": {}, "seeds": [7], "methods": {"online": changes}}
    (online,) = plan.load_methods(tiny.params(), chosen, [])
    source = store.Source("t", "m", None, None, "tok", "tmpl", "data", "float32", "online", None)
    store.write_targets(tmp_path, source, (), torch.zeros(400))
    assert student.bytes_a_token(tmp_path, online) == 0


def two_seeds(nll: list[float], divergence: float | None, stored: float | None) -> list[dict]:
    """What two seeds' students of a method measured on items of ten tokens each, of these nats."""
    columns = {"tokens": 10, "bytes": 40, "correct": 1.0, "correct_norm": 1.0, "top1_tokens": 5, "rouge_l": 0.5}
    columns |= {"matching_tokens": 1, "longer_length": 2}
    items = [columns | {"item": str(place), "nll": value} for place, value in enumerate(nll)]
    fixed = {"held_out_kl": divergence, "bytes_a_token": stored, "response_tokens": 9000, "minutes": 2.0}
    return [fixed | {"items": items} for _ in range(2)]


FOUND = {
    "sft": two_seeds([20.0, 10.0, 30.0, 21.0, 9.0, 30.0], 0.5, None),
    "online": two_seeds([18.0, 9.0, 27.0, 19.0, 8.0, 28.0], 0.25, 0.0),
    "other": two_seeds([21.0, 9.0, 30.0, 20.0, 10.0, 30.0], None, 388.1),
    "worse": two_seeds([30.0, 20.0, 40.0, 31.0, 19.0, 40.0], 0.9, None),
}


def test_methods_are_compared_with_controls_item_by_item():
    rows = scores.summarize(FOUND, check_params(tiny.params()), ["sft", "absent"])
    by_name = {row["method"]: row for row in rows}
    assert by_name["online"]["perplexity_minus_sft"] == pytest.approx(math.exp(109 / 60) - math.exp(2))
    assert methods_table.baselines(rows) == ["sft", "absent"]
    said = {name: methods_table.difference(row, "sft").partition("] ")[2] for name, row in by_name.items()}
    assert said == {"sft": "", "online": "better", "other": "within noise", "worse": "worse"}
    assert all(methods_table.difference(row, "absent") == "" for row in rows)


def test_methods_measured_on_other_items_are_refused():
    short = two_seeds([20.0, 10.0], 0.5, None)
    with pytest.raises(UserError, match=r"online: measured on other held-out responses.*\(2 of 6 are common"):
        scores.summarize({"sft": FOUND["sft"], "online": short}, check_params(tiny.params()), [])


def test_methods_are_compared_on_their_common_items():
    nats = [20.0, 10.0, 30.0, 21.0, 9.0, 30.0, 12.0, 13.0, 14.0, 15.0]
    whole, other = two_seeds(nats, 0.5, None), two_seeds(nats, 0.5, None)
    for one in other:
        one["items"] = one["items"][:0:-1]  # without the first, the last of them first
    rows = scores.summarize({"sft": whole, "other": other}, check_params(tiny.params()), ["sft"])
    assert [row["items"] for row in rows] == [9, 9]
    assert rows[1]["perplexity_minus_sft"] == 0
    assert rows[0]["perplexity"] == pytest.approx(math.exp(sum(nats[1:]) / 90))


def test_the_tables_leave_missing_values_empty(tmp_path):
    rows = scores.summarize(FOUND, check_params(tiny.params()), ["sft"])
    pd.DataFrame([row | {"commit": "0123456789"} for row in rows]).to_csv(tmp_path / "methods.csv", index=False)
    measures, costs = methods_table.tables(methods_table.read(tmp_path / "methods.csv"))
    assert [row[0] for row in measures.rows] == [row[0] for row in costs.rows] == ["online", "sft", "other", "worse"]
    assert [row[-1] for row in measures.rows] == ["0.25", "0.5", "", "0.9"]
    assert [row[-3] for row in costs.rows] == ["0", "", "388", ""]
    assert costs.header[-3:] == ["bytes per token", "response tokens", "minutes"]


@pytest.mark.slow
@pytest.mark.timeout(900)  # the pipeline of the fixture may be in it, and four students
def test_a_comparison_trains_every_method_and_resumes(committed, tmp_path):
    folder = tmp_path / "repository"
    shutil.copytree(committed, folder)
    (folder / plan.METHODS).write_text(yaml.safe_dump(PLAN, sort_keys=False))
    first = tiny.run(folder, "python", "-m", "tools.methods", "sft", "--jobs", "1", timeout=400)
    assert "1 methods, 1 at a time" in first.stdout
    files = sorted((folder / ".distill/methods/measured").glob("sft-*.json"))
    assert len(files) == 2
    before = [path.stat().st_mtime_ns for path in files]
    done = tiny.run(folder, "python", "-m", "tools.methods", "--jobs", "2", timeout=400)
    assert "2 methods, 2 at a time" in done.stdout
    assert [path.stat().st_mtime_ns for path in files] == before, "the two students of sft were made again"
    found = pd.read_csv(folder / command.CSV).set_index("method")
    assert list(found.index) == ["sft", "reverse_kl"]
    assert (found["seeds"] == 2).all()
    assert found.loc["sft", "perplexity"] != found.loc["reverse_kl", "perplexity"]
    assert (found["perplexity_ci_low"] < found["perplexity"]).all()
    assert (found["perplexity"] < found["perplexity_ci_high"]).all()
    assert (found["held_out_kl"] > 0).all()
    assert found["bytes_a_token"].isna().tolist() == [True, False]
    difference = found.loc["reverse_kl", "perplexity"] - found.loc["sft", "perplexity"]
    assert found.loc["reverse_kl", "perplexity_minus_sft"] == pytest.approx(difference, rel=1e-3)
    assert "| reverse_kl |" in (folder / command.TABLE).read_text()
    assert tiny.run(folder, "git", "rev-parse", "HEAD").stdout.startswith(found.loc["sft", "commit"])
    assert tiny.run(folder, "git", "diff", "--name-only").stdout.split() == [str(plan.METHODS), str(command.CSV)]
