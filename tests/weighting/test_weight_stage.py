"""Weights of rows by each measure, missing data, and the data card by the stage's own command."""

import json
import math
import shutil

import forks
import numpy as np
import pytest
import tiny
import yaml

from distill.cards import data_card
from distill.core.errors import UserError
from distill.params.loading import check_params
from distill.params.weight import Weight
from distill.targets.statistics import ResponseStatistics
from distill.weighting.confidence import MEASURES, ConfidenceInputs
from distill.weighting.weights import assign_weights, confidence_inputs
from stages import weight as stage


def section(**changes) -> Weight:
    """The section weight with these changes, by dotted keys with `__` for the dot."""
    return check_params(tiny.params(**{f"weight__{key}": value for key, value in changes.items()})).weight


def row(number, sample=0, **changes):
    prompt = f"ants/{number}"
    return {
        "id": f"{prompt}@tiny" + (f"/{sample}" if sample else ""),
        "prompt_id": prompt,
        "topic": "ants",
        "teacher": "tiny",
        "sample": sample,
        "messages": [{"role": "user", "content": "What is ants?"}],
        "response": f"ants | bread {'and kites ' * number}".strip(),
        "finish_reason": "stop",
        "logprobs": [-0.1 * number - 0.1] * 5,
        "degraded": [],
        **changes,
    }


def test_unknown_confidence_gives_a_neutral_weight_and_is_marked():
    rows = [row(0, degraded=["no_logprobs"]), *(row(number) for number in range(1, 5))]
    inputs = [ConfidenceInputs(""), *(ConfidenceInputs("", entropies=[-value]) for value in (0.0, 1.0, 2.0, 3.0))]
    weighted, _ = assign_weights(rows, inputs, section(confidence__measure="entropy", num_length_buckets=1), 0)
    weights = [each["weight"] for each in weighted]
    assert weights[1:] == sorted(weights[1:])
    assert weights[2] < weights[0] < weights[3]
    assert weighted[0]["degraded"] == ["no_logprobs", "no_entropy"]
    assert [each["degraded"] for each in weighted[1:]] == [[]] * 4
    assert [each["confidence"] for each in weighted] == [None, 0.0, 1.0, 2.0, 3.0]
    uniform, _ = assign_weights(rows, [], check_params(tiny.params(weight={"kind": "uniform"})).weight, 0)
    assert [(each["weight"], each["degraded"]) for each in uniform] == [(1.0, each["degraded"]) for each in rows]


def test_only_rows_that_lack_something_get_the_field_degraded():
    old = {key: value for key, value in row(1).items() if key != "degraded"}
    inputs = [ConfidenceInputs(""), ConfidenceInputs("", log_probs=[1.0])]
    weighted, _ = assign_weights([old, old], inputs, section(), 0)
    assert weighted[0]["degraded"] == ["no_mean_log_prob"]
    assert "degraded" not in weighted[1]


def test_dropped_samples_of_the_prompt_count_for_self_consistency():
    rows = [row(1, response="yes"), row(1, 1, response="no"), row(2, response="yes")]
    dropped = [
        row(1, 2, response="Yes", reason="duplicate"),
        row(1, 3, response=" ", reason="empty"),
        row(9, response="yes"),
        row(2, response="yes", id="ants/2@other", teacher="other"),
    ]
    inputs = confidence_inputs(rows, dropped, {}, "tiny")
    assert [list(each.others) for each in inputs] == [["no", "Yes"], ["yes", "Yes"], []]
    assert [MEASURES["self_consistency"](each) for each in inputs] == [0.5, 0.0, None]


def test_statistics_of_the_pass_count_for_rows_of_its_teacher_alone():
    others = row(3, teacher="other", entropies=[5.0])
    statistics = {each["id"]: ResponseStatistics([1.0], [2.0], -0.5, -1.5) for each in (row(1), others)}
    of_pass, of_row, of_other = confidence_inputs([row(1), row(2, entropies=[9.0]), others], [], statistics, "tiny")
    assert (of_pass.entropies, of_row.entropies, of_other.entropies) == ([1.0], [9.0], [5.0])
    assert (of_pass.margins, of_other.margins) == ([2.0], None)
    assert of_other.with_prompt == -0.5


CLEANING = {
    "requested": 9, "kept": 8, "dropped": 1, "reasons": {"duplicate": 1, "empty": 0},
    "splits": {split: {"topics": 1, "rows": 2, "words": 5} for split in ("train", "validation", "test")},
}  # fmt: skip


def run_stages(folder, **changes):
    """Runs stages targets and weight with a second teacher that wrote no row."""
    value = tiny.params(**changes)
    value["teachers"].append({**value["teachers"][0], "name": "second", "license": None})
    (folder / "params.yaml").write_text(yaml.safe_dump(value, sort_keys=False))
    for name in ("targets", "weight"):
        forks.stage(folder, name)


@pytest.fixture
def folder(tmp_path):
    tokenizer = tiny.tokenizer()
    tokenizer.save_pretrained(tmp_path / "teacher")
    tiny.model(len(tokenizer)).save_pretrained(tmp_path / "teacher")
    for name in ("data/clean", "metrics"):
        (tmp_path / name).mkdir(parents=True)
    rows = [row(number) for number in range(12)]
    (tmp_path / "data/clean/train.jsonl").write_text("".join(json.dumps(one) + "\n" for one in rows))
    (tmp_path / "data/clean/dropped.jsonl").write_text(
        json.dumps(row(3, 1, response="ants", reason="duplicate")) + "\n"
    )
    (tmp_path / "metrics/clean.json").write_text(json.dumps(CLEANING))
    shutil.copy(tiny.ROOT / "requirements.txt", tmp_path)
    return tmp_path


def test_rows_of_equal_weight_have_no_extremes():
    rows = [row(number) | {"weight": 1.0} for number in range(3)]
    assert data_card.extremes(rows) == {"highest": [], "lowest": []}
    rows[1]["weight"] = 0.5
    assert [some[0]["id"] for some in data_card.extremes(rows).values()] == [rows[0]["id"], rows[1]["id"]]


def test_the_card_has_counts_weights_and_licenses_and_shows_text_as_it_is(folder):
    run_stages(folder)
    card = (folder / "data/README.md").read_text()
    metrics = json.loads((folder / "metrics/weight.json").read_text())
    rows = [json.loads(line) for line in (folder / "data/weighted/train.jsonl").open()]
    order = [one["id"] for one in sorted(rows, key=lambda one: (-one["weight"], one["id"]))]
    assert [one["id"] for one in metrics["highest"]] == order[:10]
    assert [one["weight"] for one in metrics["lowest"]] == sorted(one["weight"] for one in rows)[:10]
    assert [(one["name"], one["license"], one["rows"]) for one in metrics["teachers"]] == [
        ("second", None, 0),
        ("tiny", "none: random weights", 12),
    ]
    assert "| tiny | teacher | none&#58; random weights | 12 |" in card
    assert "| second | teacher | not stated" in card
    assert "Of 9 requested responses, 8 were kept and 1 dropped." in card
    assert "| duplicate | 1 |" in card
    assert "ants &#124; bread" in card
    assert "ants | bread" not in card
    assert metrics["words"]["max"] == 2 + 22
    assert f"rank correlation of weight and length {metrics['correlation_with_length']:.2g}" in card
    lines = card.splitlines()
    assert sum("@tiny" in line.replace("&#64;", "@") for line in lines) == 20
    assert all(line.count(" | ") == 4 for line in lines if "&#64;" in line)


def test_ifd_measures_each_row_and_drops_none(folder):
    run_stages(folder, weight__confidence__measure="ifd", targets__score_without_prompt=True)
    rows = [json.loads(line) for line in (folder / "data/weighted/train.jsonl").open()]
    assert len(rows) == 12
    for one in rows:
        assert (one["confidence"] is None) == (one["degraded"] == ["no_ifd"])
        assert one["confidence"] is None or 0 < one["confidence"] < 1
    assert any(one["confidence"] is not None for one in rows)
    assert json.loads((folder / "metrics/weight.json").read_text())["confidence"] == "ifd"
    assert math.isclose(np.mean([one["weight"] for one in rows]), 1, rel_tol=1e-5)


def test_uniform_weights_read_no_statistics(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # with neither targets nor dropped rows
    rows = [row(number) for number in range(3)]
    assert stage.read_inputs(rows, check_params(tiny.params(weight={"kind": "uniform"}))) == []
    with pytest.raises(UserError, match=r"data/targets/statistics\.safetensors cannot be read"):
        stage.read_inputs(rows, check_params(tiny.params()))
