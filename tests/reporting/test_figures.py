"""The figures of a report, drawn from tiny inputs."""

import math

import pandas as pd
import plotting
import pytest
from matplotlib.colors import to_hex
from matplotlib.container import BarContainer, ErrorbarContainer

from distill.evaluation.goals import GOALS
from distill.reporting.figure_data import figure_data
from distill.reporting.figures.draw import draw_figures
from distill.reporting.figures.methods import draw_methods
from distill.reporting.figures.models import draw_goals, draw_size
from distill.reporting.figures.style import COLORS, spread_apart
from distill.reporting.inputs import Inputs
from distill.reporting.score_tables import MODELS


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return plotting.inputs(tmp_path_factory.mktemp("figures"))


@pytest.fixture(scope="module")
def inputs(folder) -> Inputs:
    return plotting.read(folder)


@pytest.fixture(scope="module")
def data(folder, inputs) -> dict[str, pd.DataFrame]:
    return figure_data(inputs, plotting.read_logs(folder))


def test_goal_panels_draw_the_models_values_in_their_colors(inputs, data):
    panels = draw_goals(inputs.metrics, data["goals"], inputs.latency).axes
    widths = [[bar.get_width() for group in axes.containers if isinstance(group, BarContainer) for bar in group]
              for axes in panels]  # fmt: skip
    assert widths[0] == pytest.approx([1, 0.3 / 0.99, 0.78 / 0.99, 0.77 / 0.99], rel=1e-5)
    assert widths[1] == [2.1, 2300, 9.9, 6.0]
    assert widths[2] == pytest.approx([1, 33 / 134, 33 / 134, 33 / 134], rel=1e-5)
    assert widths[3] == [1, 4, 4, 4]
    colors = [to_hex(group[0].get_facecolor()) for group in panels[0].containers if isinstance(group, BarContainer)]
    assert colors == [COLORS[name].lower() for name in MODELS]


def test_goal_panels_state_whether_they_are_met(inputs, data):
    panels = draw_goals(inputs.metrics, data["goals"], inputs.latency).axes
    lines = [next(text.get_text() for text in axes.texts if "required" in text.get_text()) for axes in panels]
    assert lines == [
        "distilled 0.778, required > 0.85: not met",
        "distilled 6, required \u2264 20: met",
        "distilled 0.246, required \u2264 0.25: met",
        "distilled 4, required \u2265 2: met",
    ]
    for axes, goal in zip(panels, GOALS, strict=True):
        assert goal.threshold in [line.get_xdata()[0] for line in axes.lines if line.get_linestyle() == "--"]


def test_methods_are_drawn_best_first_with_intervals_and_baseline(inputs):
    panels = draw_methods(inputs.methods).axes
    assert [tick.get_text() for tick in panels[0].get_yticklabels()] == ["forward_kl", "sft", "mixture"]
    assert panels[0].get_ylim()[0] > panels[0].get_ylim()[1], "the first is at the bottom"
    drawn = [[6.5, 9.5, 9.75], [0.6, 0.5, 0.5], [0.9, 1.5, float("nan")]]  # mixture has no held-out KL
    for axes, values in zip(panels, drawn, strict=True):
        points, _, (whiskers,) = next(group for group in axes.containers if isinstance(group, ErrorbarContainer))
        assert points.get_xdata().tolist() == pytest.approx(values, nan_ok=True)
        assert [line.get_xdata()[0] for line in axes.lines if line.get_linestyle() == "--"] == [values[1]]
        for value, segment in zip(values, whiskers.get_segments(), strict=True):
            assert math.isnan(value) or segment[0][0] <= value <= segment[1][0]


def test_size_is_drawn_in_the_models_colors(inputs, data):
    for axes in draw_size(inputs.metrics, data["goals"]).axes:
        points = {group.lines[0].get_color(): group.lines[0].get_xydata().tolist()[0] for group in axes.containers}
        assert list(points) == [COLORS[name] for name in MODELS]
        assert points[COLORS["sft"]] == [33.0, 0.78]


def test_labels_move_apart_only_if_they_collide():
    assert spread_apart([0.1, 0.9, 0.5], 0.1) == [0.1, 0.9, 0.5]
    assert spread_apart([0.50, 0.52], 0.1) == pytest.approx([0.46, 0.56])
    near = spread_apart([0.02, 0.67, 0.64], 0.075)
    assert near == pytest.approx([0.02, 0.6925, 0.6175])


def test_narrow_figures_have_the_same_panels_below_each_other(inputs, data):
    wide, narrow = (draw_figures(inputs, data, "token", narrow) for narrow in (False, True))
    assert list(wide) == list(narrow)
    for name in wide:
        assert len(wide[name].axes) == len(narrow[name].axes)
        assert narrow[name].get_figwidth() < wide[name].get_figwidth()
        assert len({panel.get_position().x0 for panel in narrow[name].axes}) == 1
