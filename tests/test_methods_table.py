"""The table of methods: its plan is checked before anything runs; its students are trained and measured for real."""

import shutil

import pandas as pd
import pytest
import tiny
import torch
import yaml

from distill import params as params_file
from distill import targets
from distill.errors import UserError
from tools import methods

PLAN = {
    "profile": {"train.schedule.epochs": 1},
    "seeds": [7, 8],
    "methods": {"sft": {"variant": "sft"}, "reverse_kl": {"train.distilled.loss": "reverse_kl"}},
}


def test_the_methods_that_are_shipped_are_accepted_by_the_schema_and_differ():
    base = yaml.safe_load((tiny.ROOT / params_file.PATH).read_text())
    found = methods.methods(base, yaml.safe_load((tiny.ROOT / methods.METHODS).read_text()), [])
    assert [one.name for one in found][:2] == ["sft", "forward_kl"]
    assert all(len(one.params.seeds) >= 3 for one in found)
    chosen = [(one.variant, one.raw) for one in found]
    assert all(one not in chosen[:place] for place, one in enumerate(chosen)), "two methods are the same"


def test_a_method_changes_what_it_names_on_top_of_the_profile_and_nothing_else():
    base = tiny.params()
    (found,) = methods.methods(base, PLAN, ["reverse_kl"])
    assert found.variant == "distilled"
    assert found.raw["train"]["distilled"] == base["train"]["distilled"] | {"loss": "reverse_kl"}
    assert found.raw["train"]["schedule"] == base["train"]["schedule"] | {"epochs": 1}
    assert (found.raw["seeds"], base["seeds"]) == ([7, 8], [7])
    assert found.raw["generate"] == base["generate"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"train.distiled.loss": "jsd"}, "params.yaml has no train.distiled.loss"),
        ({"teachers.3.share": 0.5}, "params.yaml has no teachers.3.share"),
        ({"train.distilled.loss": "kl"}, "method wrong: .*train.distilled.loss"),
    ],
)
def test_a_wrong_plan_is_refused_by_the_name_of_the_method_or_key(changes, message):
    with pytest.raises(UserError, match=f"(?s){message}"):
        methods.methods(tiny.params(), PLAN | {"methods": {"wrong": changes}}, [])


def test_an_unknown_method_is_refused_with_those_that_there_are():
    with pytest.raises(UserError, match="has no jdd; it has sft, reverse_kl"):
        methods.methods(tiny.params(), PLAN, ["jdd"])


def test_bytes_a_token_are_those_of_the_files_over_the_responses_tokens_and_texts_alone_have_none(tmp_path):
    plan = {"profile": {}, "seeds": [7], "methods": {"sft": {"variant": "sft"}, "forward_kl": {}}}
    sft, stored = methods.methods(tiny.params(), plan, [])
    source = targets.Source("t", "m", None, None, "tok", "tmpl", "data", "float32", "stored", 8)
    samples = [(name, targets.top_k(torch.randn(count, 30), 8)) for name, count in (("a", 600), ("b", 400))]
    targets.write(tmp_path, source, samples)
    size = (tmp_path / "00000.safetensors").stat().st_size
    assert methods.bytes_a_token(tmp_path, stored) == size / 1000 == pytest.approx(6 * 8 + 4, rel=0.02)
    assert methods.bytes_a_token(tmp_path, sft) is None
    (tmp_path / "layers").mkdir()
    states = [(name, targets.States(torch.zeros(len(rows), 2, 16).bfloat16())) for name, rows in samples]
    targets.write(tmp_path / "layers", targets.layers_source(source, [0, 1]), states)
    assert methods.bytes_a_token(tmp_path, stored) == pytest.approx(6 * 8 + 4 + 2 * 2 * 16, rel=0.02)


def test_a_teacher_that_is_asked_in_each_step_stores_no_bytes(tmp_path):
    changes = {"weight.targets": {"kind": "online", "teacher": "tiny", "batch_tokens": 64}}
    plan = {"profile": {}, "seeds": [7], "methods": {"online": changes}}
    (online,) = methods.methods(tiny.params(), plan, [])
    source = targets.Source("t", "m", None, None, "tok", "tmpl", "data", "float32", "online", None)
    targets.write(tmp_path, source, (), torch.zeros(400))
    assert methods.bytes_a_token(tmp_path, online) == 0


def measured(name: str, divergence: float | None, stored: float | None) -> dict:
    return {
        "method": name,
        "held_out_kl": divergence,
        "bytes_a_token": stored,
        "response_tokens": 9000,
        "minutes": 2.0,
    } | {f"{score}{end}": 0.5 for score in methods.SHOWN for end in ("", "_ci_low", "_ci_high")}


def test_the_table_has_divergence_and_bytes_and_leaves_empty_what_a_method_has_not():
    found = methods.table([measured("sft", 0.5, None), measured("online", 0.25, 0.0), measured("other", None, 388.1)])
    assert found.header[-4:] == ["held-out KL", "bytes a token", "response tokens", "minutes"]
    assert [row[-4:-2] for row in found.rows] == [["0.5", ""], ["0.25", "0"], ["", "388"]]


@pytest.mark.proof
@pytest.mark.timeout(900)  # the pipeline of the fixture may be in it, and four students
def test_every_method_is_trained_with_every_seed_and_measured_and_a_second_run_goes_on(committed, tmp_path):
    folder = tmp_path / "repository"
    shutil.copytree(committed, folder)
    (folder / methods.METHODS).write_text(yaml.safe_dump(PLAN, sort_keys=False))
    tiny.run(folder, "python", "-m", "tools.methods", "sft", timeout=400)
    done = tiny.run(folder, "python", "-m", "tools.methods", timeout=400)
    assert done.stdout.count("measured before") == 2, "the two students of sft were made again"
    found = pd.read_csv(folder / methods.CSV).set_index("method")
    assert list(found.index) == ["sft", "reverse_kl"]
    assert (found["seeds"] == 2).all()
    assert found.loc["sft", "perplexity"] != found.loc["reverse_kl", "perplexity"]
    assert (found["perplexity_ci_low"] < found["perplexity"]).all()
    assert (found["perplexity"] < found["perplexity_ci_high"]).all()
    assert (found["held_out_kl"] > 0).all()
    assert found["bytes_a_token"].isna().tolist() == [True, False]
    assert "| reverse_kl |" in (folder / methods.TABLE).read_text()
    assert tiny.run(folder, "git", "diff", "--name-only").stdout.split() == [str(methods.METHODS)]
