"""The plot stage by its real command on tiny literal inputs."""

import csv
import json
from pathlib import Path

import pytest
from plotting import inputs, run, write

from distill.cards import markdown
from distill.core.errors import UserError
from distill.reporting import main_table, methods_table
from stages import plot

pytestmark = pytest.mark.xdist_group("plot")


def written(folder: Path) -> dict[str, bytes]:
    paths = [path for part in ("figures", "plots") for path in (folder / "metrics" / part).iterdir()]
    return {path.name: path.read_bytes() for path in [*paths, *(folder / "metrics").glob("report.*")]}


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> Path:
    folder = inputs(tmp_path_factory.mktemp("plot"))
    done = run(folder)
    assert done.returncode == 0, done.stderr
    return folder


def test_the_same_bytes_are_written_whatever_the_users_matplotlib(finished, tmp_path):
    again = inputs(tmp_path)
    (again / "matplotlibrc").write_text("font.size: 20\naxes.grid: True\nlines.linewidth: 9\n")
    assert run(again).returncode == 0
    names = ("loss", "goals", "size", "weights", "latency")
    assert set(written(again)) == {f"{name}.{kind}" for name in names for kind in ("png", "csv")} | {
        "methods.png", "report.md", "report.html"
    }  # fmt: skip
    assert written(again) == written(finished)


def test_figures_carry_no_metadata(finished):
    for path in (finished / "metrics/figures").iterdir():
        assert b"tEXt" not in path.read_bytes()


def test_the_report_is_of_its_own_run_without_our_table_of_methods(finished):
    for name in ("report.md", "report.html"):
        text = (finished / "metrics" / name).read_text()
        for words in ("0123abc", "6.5 [6, 7]", "Comparison of methods", "methods.csv"):
            assert words not in text, (name, words)


@pytest.mark.parametrize(("items", "warned"), [(9, True), (99, True), (100, False)])
def test_goals_on_few_items_have_a_warning(tmp_path, items, warned):
    folder = inputs(tmp_path)
    path = folder / "metrics/evaluate.json"
    write(path, json.loads(path.read_text()) | {"items": items})
    done = run(folder)
    texts = [done.stdout, *((folder / "metrics" / name).read_text() for name in ("report.md", "report.html"))]
    assert [f"Warning: {items} held-out items are too few" in text for text in texts] == [warned] * 3


def test_the_tables_of_methods_have_intervals_and_significance(finished):
    tables = methods_table.tables(methods_table.read(finished / "metrics/methods.csv"))
    text = "\n".join(map(markdown.table, tables))
    for words in ("6.5 [6, 7]", "-3.00 [-3.50, -2.50] better", "+0.25 [-0.50, +1.00] within noise"):
        assert words in text


@pytest.mark.parametrize(
    ("before", "after"),
    [("forward_kl,3", ",3"), ("6.5,6,7", "six,6,7"), ("6.5,6,7", ",6,7"), ("6.5,6,7", "inf,6,7"), ("accuracy,", "a,")],
)
def test_an_invalid_table_of_methods_is_refused(tmp_path, before, after):
    folder = inputs(tmp_path)
    path = folder / "metrics/methods.csv"
    path.write_text(path.read_text().replace(before, after, 1))
    done = run(folder)
    assert done.returncode == 1
    assert "git checkout metrics/methods.csv" in done.stderr
    assert "python -m tools.methods" in done.stderr
    assert "Traceback" not in done.stderr


def test_the_tables_behind_the_figures_have_the_inputs_numbers(finished):
    tables = {p.stem: list(csv.DictReader(p.open())) for p in (finished / "metrics/plots").iterdir()}
    assert tables["loss"][1] == {
        "step": "5",
        "variant": "sft",
        "phase": "student",
        "split": "train",
        "epoch": "0.5",
        "loss": "2.5",
    }
    assert [row["variant"] for row in tables["loss"]] == ["sft"] * 4 + ["distilled"] * 4
    goals = {(row["model"], row["score"]): float(row["value"]) for row in tables["goals"]}
    assert goals["init", "perplexity"] == 2300
    assert goals["distilled", "accuracy_ratio"] == pytest.approx(0.77 / 0.99, rel=1e-5)
    assert {row["quantity"]: int(row["samples"]) for row in tables["weights"]} == {"weight": 1, "words": 1}
    assert tables["latency"][2] == {
        "model": "teacher", "timing": "response_ms", "low": "3.6", "high": "4.8", "median": "4.0"
    }  # fmt: skip


def test_latency_changes_nothing_but_its_figures_and_tables(finished, tmp_path):
    slower = inputs(tmp_path)
    latency = json.loads((slower / "metrics/latency.json").read_text())
    latency["models"]["teacher"]["response_ms"] = {"median": 9.0, "low": 8.0, "high": 10.0}
    write(slower / "metrics/latency.json", latency)
    assert run(slower).returncode == 0
    before, after = written(finished), written(slower)
    assert {name for name in before if before[name] != after[name]} == {
        "goals.png", "latency.png", "latency.csv", "report.html"
    }  # fmt: skip


def test_the_report_has_tables_figures_and_responses(finished):
    text = (finished / "metrics/report.md").read_text()
    metrics = json.loads((finished / "metrics/metrics.json").read_text())
    assert markdown.table(main_table.results(metrics)) in text
    assert markdown.table(main_table.goals(metrics)) in text
    assert "3 of 4 goals are met" in text
    for name in ("loss", "goals", "size", "weights", "latency"):
        assert f"](figures/{name}.png)" in text
    assert "Of 8 requested responses, 6 were kept and 2 dropped" in text
    assert "| too short | 2 |" in text
    assert "| empty |" not in text
    assert "**Why &#124; &lt;b&gt;?**" in text
    assert "| sft | So &#42;it&#42; is. |" in text
    assert "| 0.77 [0.731, 0.778] |" in text


def test_both_reports_state_the_number_of_measured_responses(finished):
    said = "Measured on 400 of 1,488 held-out responses; ROUGE-L, which needs generated text, on 100 of these."
    results, _, _ = (finished / "metrics/report.md").read_text().partition("## Comparison")
    assert said in results
    assert said in (finished / "metrics/report.html").read_text()


def remove(name):
    return lambda folder: (folder / name).unlink()


def put(name, text):
    return lambda folder: (folder / name).write_text(text)


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (remove("metrics/metrics.json"), "stage evaluate"),
        (remove("metrics/latency.json"), "stage evaluate"),
        (remove("metrics/clean.json"), "stage clean"),
        (remove("metrics/weight.json"), "stage weight"),
        (remove("metrics/samples.jsonl"), "stage evaluate"),
        (remove("data/weighted/train.jsonl"), "stage weight"),
        (remove("metrics/regressions.jsonl"), "stage evaluate"),
        (remove("metrics/train/distilled-20.json"), "stage distilled@20"),
        (remove("metrics/train/distilled-20_log.csv"), "Stage distilled@20 writes it"),
        (put("metrics/evaluate.json", "{}"), "number at models.teacher.accuracy.ci_low"),
        (put("metrics/clean.json", "[]"), "metrics/clean.json must be a JSON object"),
        (
            put("metrics/train/distilled-20.json", '{"parameters": 1, "steps": 1, "response_tokens": 1}'),
            "text at source",
        ),
        (
            put("metrics/samples.jsonl", '{"reference": "x"}\n'),
            "samples.jsonl, line 1, must have a text at messages",
        ),
        (put("metrics/weight.json", '{"kind": "uniform"}'), "number at ess_fraction"),
        (put("metrics/regressions.jsonl", '{"tokens": 1}\n'), "regressions.jsonl, line 1, must have a number at"),
        (
            put("data/weighted/train.jsonl", '{"response": "x"}\n'),
            "train.jsonl, line 1, must have a number at weight",
        ),
        (put("data/weighted/train.jsonl", ""), "has no rows. Stage weight"),
        (put("metrics/train/sft-20_log.csv", ""), "Stage sft@20 writes it"),
        (put("metrics/train/sft-20_log.csv", "a,b\n1,2\n"), "must be a table of step, epoch, split, loss"),
        (
            put("metrics/train/sft-20_log.csv", "step,epoch,split,loss,phase\n1,1,train,x,student\n"),
            "must be a table of",
        ),
        (
            put("metrics/train/sft-20_log.csv", "step,epoch,split,loss,phase\n1,1,train,,student\n"),
            "of them finite",
        ),
    ],
)
def test_a_missing_or_invalid_input_names_its_stage(tmp_path, monkeypatch, damage, words):
    folder = inputs(tmp_path)
    damage(folder)
    monkeypatch.chdir(folder)
    with pytest.raises(UserError, match=r"(?s).*") as caught:
        plot.main()
    assert words in str(caught.value)
    assert not (folder / "metrics/figures").exists()
