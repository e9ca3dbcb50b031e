"""The main table and its goals."""

from types import SimpleNamespace

import pandas as pd
import pytest

from distill.core.errors import UserError
from distill.evaluation.bootstrap import Estimate
from distill.evaluation.goals import GOALS
from distill.evaluation.multiple_choice import CHANCE
from distill.evaluation.results import items_table, main_table


def estimates(accuracy: float, perplexity: float) -> dict[str, Estimate]:
    values = {"accuracy": accuracy, "accuracy_above_chance": (accuracy - 0.25) / 0.75, "perplexity": perplexity}
    values |= {"top1_agreement": 0.5, "rouge_l": 0.5}
    return {name: Estimate(value, value, value) for name, value in values.items()}


def table(**changes: float) -> dict:
    value = {"accuracy": 0.9, "perplexity": 9.0, "parameters": 24, "gain": 3.04} | changes
    scores = {"teacher": estimates(1.0, 2.0), "init": estimates(0.25, 1e5), "sft": estimates(0.8, 12.0)}
    scores["distilled"] = estimates(value["accuracy"], value["perplexity"])
    sizes = dict.fromkeys(scores, (100, 400)) | {"distilled": (int(value["parameters"]), 96)}
    return main_table(scores, sizes, value["gain"], CHANCE)


def test_the_goals_compare_the_distilled_student_with_the_teacher():
    goals = table()["goals"]
    assert goals == {
        "accuracy_ratio": 0.9,
        "accuracy_ratio_above_chance": pytest.approx(0.65 / 0.75, rel=1e-5),
        "perplexity": 9.0,
        "compression_ratio": 0.24,
        "latency_gain": 3.0,
        "met": 4,
    }


@pytest.mark.parametrize(
    ("changes", "met"),
    [
        ({"accuracy": 0.85}, 3), ({"accuracy": 0.851}, 4), ({"perplexity": 20.0}, 4), ({"perplexity": 20.1}, 3),
        ({"parameters": 25}, 4), ({"parameters": 26}, 3), ({"gain": 2.0}, 4), ({"gain": 1.94}, 3),
    ],
)  # fmt: skip
def test_each_goal_is_met_on_its_side_of_the_threshold(changes, met):
    assert table(**changes)["goals"]["met"] == met
    assert len(GOALS) == 4


def test_a_teacher_at_chance_is_refused():
    scores = dict.fromkeys(("teacher", "init", "sft", "distilled"), estimates(0.25, 0.25))
    with pytest.raises(UserError, match="must be better than chance"):
        main_table(scores, dict.fromkeys(scores, (1, 1)), 1.0, CHANCE)


def test_no_id_or_label_of_the_items_is_a_formula_of_a_spreadsheet():
    ids = ['=cmd|"/C calc"!A0', "+1", "-1", "@SUM(1)", "\t=1", "\uff1d1", "'=1", "=1", "bees/fact", "1-2"]
    tables = {name: pd.DataFrame({"item": ids, "picked": "-", "nll": -1.0}) for name in ("teacher", "sft-1")}
    models = [SimpleNamespace(name="teacher", variant="teacher", seed=None)]
    models.append(SimpleNamespace(name="sft-1", variant="sft", seed=1))
    written = items_table(models, tables)
    assert written["item"].iloc[:8].str.startswith("'").all()
    assert written["item"].nunique() == len(ids)
    assert list(written["item"].iloc[8:10]) == ["bees/fact", "1-2"]
    assert set(written["picked"]) == {"'-"}
    assert set(written["nll"]) == {-1.0}
    assert written["seed"].isna().tolist() == [True] * 10 + [False] * 10
