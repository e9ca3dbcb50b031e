"""The plot stage by its real command on tiny literal inputs."""

import csv
import json
import math
from pathlib import Path

import pandas as pd
import pytest
from matplotlib.colors import to_hex
from matplotlib.container import BarContainer, ErrorbarContainer
from plotting import inputs, run, write

from distill.cards import markdown
from distill.reporting import figures, methods_table, report, score_tables
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


def test_the_stage_writes_what_it_promises_and_the_same_bytes_again_whatever_the_users_matplotlib(finished, tmp_path):
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


def read(finished: Path) -> tuple[dict, pd.DataFrame, dict]:
    """The main table, the scores behind the figures, the timings."""
    main, latency = (json.loads((finished / f"metrics/{name}.json").read_text()) for name in ("metrics", "latency"))
    return main, pd.read_csv(finished / "metrics/plots/goals.csv"), latency


def test_each_goals_panel_draws_the_models_values_in_their_colours(finished):
    panels = figures.draw_goals(*read(finished)).axes
    widths = [[bar.get_width() for group in axes.containers if isinstance(group, BarContainer) for bar in group]
              for axes in panels]  # fmt: skip
    assert widths[0] == pytest.approx([1, 0.3 / 0.99, 0.78 / 0.99, 0.77 / 0.99], rel=1e-5)
    assert widths[1] == [2.1, 2300, 9.9, 6.0]
    assert widths[2] == pytest.approx([1, 33 / 134, 33 / 134, 33 / 134], rel=1e-5)
    assert widths[3] == [1, 4, 4, 4]
    colours = [to_hex(group[0].get_facecolor()) for group in panels[0].containers if isinstance(group, BarContainer)]
    assert colours == [figures.COLOURS[name].lower() for name in score_tables.MODELS]


def test_each_goals_panel_says_whether_it_is_met_and_draws_its_threshold(finished):
    panels = figures.draw_goals(*read(finished)).axes
    lines = [next(text.get_text() for text in axes.texts if "wanted" in text.get_text()) for axes in panels]
    assert lines == [
        "distilled 0.778, wanted > 0.85: not met",
        "distilled 6, wanted \u2264 20: met",
        "distilled 0.246, wanted \u2264 0.25: met",
        "distilled 4, wanted \u2265 2: met",
    ]
    for axes, goal in zip(panels, plot.GOALS, strict=True):
        assert goal.threshold in [line.get_xdata()[0] for line in axes.lines if line.get_linestyle() == "--"]


def test_methods_are_drawn_best_on_top_with_their_intervals_and_the_control(finished):
    panels = figures.draw_methods(methods_table.read(finished / "metrics/methods.csv")).axes
    assert [tick.get_text() for tick in panels[0].get_yticklabels()] == ["forward_kl", "sft", "mixture"]
    assert panels[0].get_ylim()[0] > panels[0].get_ylim()[1], "the first is at the bottom"
    drawn = [[6.5, 9.5, 9.75], [0.6, 0.5, 0.5], [0.9, 1.5, float("nan")]]  # mixture has no held-out KL
    for axes, values in zip(panels, drawn, strict=True):
        points, _, (whiskers,) = next(group for group in axes.containers if isinstance(group, ErrorbarContainer))
        assert points.get_xdata().tolist() == pytest.approx(values, nan_ok=True)
        assert [line.get_xdata()[0] for line in axes.lines if line.get_linestyle() == "--"] == [values[1]]
        for value, segment in zip(values, whiskers.get_segments(), strict=True):
            assert math.isnan(value) or segment[0][0] <= value <= segment[1][0]


def test_the_report_has_both_tables_of_methods_and_says_which_helps(finished):
    for name in ("report.md", "report.html"):
        text = (finished / "metrics" / name).read_text()
        for said in ("0123abc", "6.5 [6, 7]", "-3.00 [-3.50, -2.50] better", "+0.25 [-0.50, +1.00] within noise"):
            assert said in text, (name, said)


@pytest.mark.parametrize(
    ("before", "after"),
    [("forward_kl,3", ",3"), ("6.5,6,7", "six,6,7"), ("6.5,6,7", ",6,7"), ("6.5,6,7", "inf,6,7"), ("accuracy,", "a,")],
)
def test_a_broken_table_of_methods_is_refused_with_the_way_out(tmp_path, before, after):
    folder = inputs(tmp_path)
    path = folder / "metrics/methods.csv"
    path.write_text(path.read_text().replace(before, after, 1))
    done = run(folder)
    assert done.returncode == 1
    assert "git checkout metrics/methods.csv" in done.stderr
    assert "python -m tools.methods" in done.stderr
    assert "Traceback" not in done.stderr


def test_quality_against_size_is_drawn_in_the_models_colours(finished):
    metrics, scores, _ = read(finished)
    for axes in figures.draw_size(metrics, scores).axes:
        points = {group.lines[0].get_color(): group.lines[0].get_xydata().tolist()[0] for group in axes.containers}
        assert list(points) == [figures.COLOURS[name] for name in score_tables.MODELS]
        assert points[figures.COLOURS["sft"]] == [33.0, 0.78]


def test_the_tables_behind_the_figures_hold_the_inputs_numbers(finished):
    tables = {p.stem: list(csv.DictReader(p.open())) for p in (finished / "metrics/plots").iterdir()}
    assert tables["loss"][1] == {
        "step": "5",
        "variant": "sft",
        "training": "student",
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


def test_nothing_that_time_changes_is_in_a_table_but_latencys(finished, tmp_path):
    slower = inputs(tmp_path)
    latency = json.loads((slower / "metrics/latency.json").read_text())
    latency["models"]["teacher"]["response_ms"] = {"median": 9.0, "low": 8.0, "high": 10.0}
    write(slower / "metrics/latency.json", latency)
    assert run(slower).returncode == 0
    before, after = written(finished), written(slower)
    assert {name for name in before if before[name] != after[name]} == {
        "goals.png", "latency.png", "latency.csv", "report.html"
    }  # fmt: skip


def test_the_report_has_the_table_the_goals_the_figures_and_the_answers(finished):
    text = (finished / "metrics/report.md").read_text()
    metrics = json.loads((finished / "metrics/metrics.json").read_text())
    assert markdown.table(report.results(metrics)) in text
    assert markdown.table(report.goals(metrics)) in text
    assert "3 of 4 goals met" in text
    for name in ("loss", "goals", "size", "weights", "latency"):
        assert f"](figures/{name}.png)" in text
    assert "8 answers were asked for, 6 kept and 2 dropped" in text
    assert "| too short | 2 |" in text
    assert "| empty |" not in text
    assert "**Why &#124; &lt;b&gt;?**" in text
    assert "| sft | So &#42;it&#42; is. |" in text
    assert "| 0.77 [0.731, 0.778] |" in text


def test_both_reports_say_on_how_many_of_the_held_out_answers_the_table_stands(finished):
    said = "Measured on 400 of 1,488 held-out answers; what the models write themselves, as ROUGE-L, on 100 of these."
    table, _, _ = (finished / "metrics/report.md").read_text().partition("## Goals")
    assert said in table
    assert said in (finished / "metrics/report.html").read_text()
    whole = report.measured_on({"items": 88, "held_out": 88, "generations": 50})
    assert whole.startswith("Measured on all 88 held-out answers; ")


def test_labels_are_moved_apart_only_where_they_collide():
    assert figures.spread([0.1, 0.9, 0.5], 0.1) == [0.1, 0.9, 0.5]
    assert figures.spread([0.50, 0.52], 0.1) == pytest.approx([0.46, 0.56])
    near = figures.spread([0.02, 0.67, 0.64], 0.075)
    assert near == pytest.approx([0.02, 0.6925, 0.6175])


def gone(name):
    return lambda folder: (folder / name).unlink()


def says(name, text):
    return lambda folder: (folder / name).write_text(text)


@pytest.mark.parametrize(
    ("mischief", "words"),
    [
        (gone("metrics/metrics.json"), "stage evaluate"),
        (gone("metrics/latency.json"), "stage evaluate"),
        (gone("metrics/clean.json"), "stage clean"),
        (gone("metrics/weight.json"), "stage weight"),
        (gone("metrics/samples.jsonl"), "stage evaluate"),
        (gone("data/weighted/train.jsonl"), "stage weight"),
        (gone("metrics/regressions.jsonl"), "stage evaluate"),
        (gone("metrics/train/distilled-20.json"), "stage train@distilled-20"),
        (gone("metrics/train/distilled-20_log.csv"), "Stage train@distilled-20 writes it"),
        (says("metrics/evaluate.json", "{}"), "number at models.teacher.accuracy.ci_low"),
        (says("metrics/clean.json", "[]"), "metrics/clean.json must have a number at requested"),
        (
            says("metrics/train/distilled-20.json", '{"parameters": 1, "steps": 1, "response_tokens": 1}'),
            "text at source",
        ),
        (says("metrics/samples.jsonl", '{"reference": "x"}\n'), "samples.jsonl, line 1, must have a text at messages"),
        (says("metrics/weight.json", '{"scheme": "uniform"}'), "number at effective_share"),
        (says("metrics/regressions.jsonl", '{"tokens": 1}\n'), "regressions.jsonl, line 1, must have a number at"),
        (says("data/weighted/train.jsonl", '{"response": "x"}\n'), "train.jsonl, line 1, must have a number at weight"),
        (says("data/weighted/train.jsonl", ""), "has no rows. Stage weight"),
        (says("metrics/train/sft-20_log.csv", ""), "Stage train@sft-20 writes it"),
        (says("metrics/train/sft-20_log.csv", "a,b\n1,2\n"), "is no table of step, epoch, split, loss"),
        (
            says("metrics/train/sft-20_log.csv", "step,epoch,split,loss,training\n1,1,train,x,student\n"),
            "is no table of",
        ),
        (says("metrics/train/sft-20_log.csv", "step,epoch,split,loss,training\n1,1,train,,student\n"), "not finite"),
    ],
)
def test_a_missing_or_broken_input_names_the_stage_that_writes_it(tmp_path, monkeypatch, mischief, words):
    folder = inputs(tmp_path)
    mischief(folder)
    monkeypatch.chdir(folder)
    with pytest.raises(plot.UserError, match=r"(?s).*") as caught:
        plot.main()
    assert words in str(caught.value)
    assert not (folder / "metrics/figures").exists()
