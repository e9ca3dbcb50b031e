"""The report's page in a real browser, made of the most hostile texts; and what it holds, without one."""

import json
import re
from pathlib import Path

import browser
import plotting
import pytest
import yaml
from PIL import Image

from distill.cards.document import Data
from distill.reporting import html, score_tables

pytestmark = pytest.mark.xdist_group("page")
HOSTILE = (
    '<script>document.title="owned"; fetch("http://attacker.invalid/")</script><img src="http://attacker.invalid/x" '
    'onerror="document.title=1"></td></dd></style> **b** [l](javascript:alert(1)) {{ 7*7 }} `c` &amp; '
) + "long" * 40
POLICY = re.compile(r'<meta http-equiv="Content-Security-Policy".*?>')


@pytest.fixture(scope="module")
def hostile(tmp_path_factory) -> Path:
    """A finished stage plot in which every text of data and params is hostile."""
    folder = plotting.inputs(tmp_path_factory.mktemp("page"))
    for name in ("metrics/samples.jsonl", "metrics/regressions.jsonl"):
        row = json.loads((folder / name).read_text())
        row |= {"messages": [{"role": "user", "content": HOSTILE}], "reference": HOSTILE}
        row["generated"] = dict.fromkeys(score_tables.MODELS, HOSTILE)
        (folder / name).write_text(f"{json.dumps(row)}\n" * 2)
    rows = [json.loads(line) for line in (folder / "data/weighted/train.jsonl").open()]
    for row in rows:
        row |= {"messages": [{"role": "user", "content": HOSTILE}], "response": HOSTILE, "teacher": HOSTILE}
    (folder / "data/weighted/train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    weight = json.loads((folder / "metrics/weight.json").read_text())
    weight["teachers"][0] |= {"name": HOSTILE, "model": HOSTILE, "license": HOSTILE}
    plotting.write(folder / "metrics/weight.json", weight | {"degraded": {HOSTILE: 1}})
    scores = json.loads((folder / "metrics/evaluate.json").read_text())
    for model in scores["models"].values():
        model |= {"calibration_error": {"value": 0.5, "ci_low": 0.4, "ci_high": 0.6}, HOSTILE: 3}
        model |= {"bins": [{"low": 0, HOSTILE: HOSTILE}], "length": {"mean": 7}}
    scores["lengths"] = {name: {"generated_tokens": 1234.5, "ended": 1.0} for name in score_tables.MODELS}
    plotting.write(folder / "metrics/evaluate.json", scores)
    params = yaml.safe_load((folder / "params.yaml").read_text())
    params["generate"]["system_prompt"] = HOSTILE
    params["teachers"][0]["license"] = HOSTILE
    (folder / "params.yaml").write_text(yaml.safe_dump(params))
    done = plotting.run(folder)
    assert done.returncode == 0, done.stderr
    return folder / "metrics/report.html"


@pytest.fixture(scope="module")
def found(hostile, tmp_path_factory):
    """What a browser finds in the page at three widths; without the policy that would forbid it to ask anything."""
    if browser.CHROMIUM is None:
        pytest.skip(browser.MISSING)
    text, count = POLICY.subn("", hostile.read_text())
    assert count == 1
    return browser.measured(text, [320, 390, 1280], tmp_path_factory.mktemp("browser"))


@pytest.mark.slow
def test_no_text_becomes_markup_and_the_page_asks_nobody_for_anything(found):
    measures, console, asked = found
    assert not any("attacker" in path for path in asked)  # the browser itself asks its maker for updates
    assert console == []
    for measure in measures:
        assert measure["asked"] == []
        assert measure["title"] == "Report: a distilled student and its teacher"
        assert measure["scripts"] == 0
        assert all(link.startswith("#") for link in measure["links"])
        assert measure["missing"] == []
        assert measure["text"].count(HOSTILE[:70]) >= 12


@pytest.mark.slow
def test_the_page_is_no_wider_than_a_phone_and_all_figures_are_there(found):
    measures, _, _ = found
    assert [measure["frame"] for measure in measures] == [320, 390, 1280]
    for measure in measures:
        assert measure["page"] <= measure["frame"]
        assert measure["beyond"] == []
        assert len(measure["images"]) == 6
        assert all(measure["images"])
    phone, desk = measures[1]["images"], measures[2]["images"]
    assert all(narrow < wide for narrow, wide in zip(phone, desk, strict=True))


@pytest.mark.slow
@pytest.mark.skipif(browser.CHROMIUM is None, reason=browser.MISSING)
def test_a_phone_shows_the_file_itself_without_a_word_on_the_console(hostile, tmp_path):
    picture = tmp_path / "phone.png"
    done = browser.chromium(tmp_path, "--window-size=390,844", f"--screenshot={picture}", hostile.as_uri())
    assert browser.console(done) == []
    with Image.open(picture) as image:
        assert image.size == (390, 844)
        assert len(image.convert("RGB").getcolors(10**6)) > 50


def test_the_page_is_one_file_of_a_readable_size_that_names_no_other(hostile):
    text = hostile.read_text()
    assert len(text) < 1_500_000
    assert set(re.findall(r'(?:src|srcset|href)="(#|data:|[^"]*)', text)) == {"#", "data:"}
    assert "url(" not in text
    assert "@import" not in text


def test_the_page_has_every_score_statistic_choice_and_hash_and_both_cards(hostile):
    text = hostile.read_text()
    for name, _ in score_tables.SCORES.values():
        assert f">{name} (" in text
    for part in (
        "calibration error",
        "0.5 [0.4, 0.6]",
        "lengths, generated tokens",
        "1,230",
        "train.schedule.epochs",
        "Made from",
    ):
        assert part in text, part
    assert "metrics/regressions.jsonl" in text
    assert "teacher 0.5, distilled 3 nats per token, 2 tokens" in text
    assert "8 answers were asked for, 6 kept and 2 dropped" in text
    assert "The 2 rows of highest weight" in text
    assert "init" in text


def test_a_regression_without_an_answer_of_a_model_leaves_it_out():
    row = {"messages": [{"role": "user", "content": "p"}], "reference": "r", "generated": {"init": None, "sft": "s"}}
    assert html.asked(row) == {"prompt": "p", "answers": [["teacher, as stored", "r"], ["sft", "s"]]}


def test_statistics_show_whatever_else_evaluate_json_has():
    models = {name: {"accuracy": dict.fromkeys(score_tables.ESTIMATE, 1.0)} for name in score_tables.MODELS}
    models["sft"] |= {"a_b": {"c": 2, "d": {"e": None}}, "rows": [{"x": 1, "y": "z"}, {"x": 3}], "flag": True}
    scores = {"items": 400, "models": models, "lengths": {"teacher": {"mean": 15.25}}, "size": {"bytes": 0.5}, "no": {}}
    single, rows, others = score_tables.statistics(scores)
    assert single.rows == [
        ["lengths, mean", "15.2", "-", "-", "-"],
        ["a b, c", "-", "-", "2", "-"],
        ["a b, d, e", "-", "-", "-", "-"],
        ["flag", "-", "-", "true", "-"],
    ]
    assert [list(rows.header), *rows.rows] == [["rows", "x", "y"], ["sft", "1", "z"], ["sft", "3", "-"]]
    assert isinstance(rows.rows[0][2], Data)
    assert others.rows == [["items", "400"], ["size, bytes", "0.5"]]
    assert score_tables.statistics({"models": {name: {} for name in score_tables.MODELS}}) == []


def test_several_training_seeds_have_a_table_and_one_has_none():
    row = {"seeds": 2, "mean": 0.5, "sd": 0.1, "ci_low": 0.3, "ci_high": 0.7}
    scores = {"models": {name: {} for name in score_tables.MODELS}, "seeds": {"sft": {"accuracy": row}}}
    (table,) = score_tables.statistics(scores)
    assert [list(line) for line in table.rows] == [["sft", "accuracy", "0.5", "0.1", "0.3", "0.7"]]
    scores["seeds"]["sft"]["accuracy"] = row | {"seeds": 1, "sd": None}
    assert score_tables.statistics(scores) == []
