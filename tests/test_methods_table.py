"""The table of methods: its plan is checked before anything runs; its students are trained and measured for real."""

import shutil

import pandas as pd
import pytest
import tiny
import yaml

from distill import params as params_file
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
    assert "| reverse_kl |" in (folder / methods.TABLE).read_text()
    assert tiny.run(folder, "git", "diff", "--name-only").stdout.split() == [str(methods.METHODS)]
