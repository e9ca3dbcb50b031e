"""All figures of a report by name."""

import pandas as pd
from matplotlib.figure import Figure

from distill.cards.data_card import num_words
from distill.reporting.figures.loss import draw_loss
from distill.reporting.figures.methods import draw_methods
from distill.reporting.figures.models import draw_goals, draw_latency, draw_size
from distill.reporting.figures.weights import draw_weights
from distill.reporting.inputs import Inputs


def draw_figures(inputs: Inputs, data: dict[str, pd.DataFrame], unit: str, narrow: bool = False) -> dict[str, Figure]:
    """The figures of the tables of `figure_data`. `unit` is what a loss counts: token or label."""
    lengths = [num_words(row) for row in inputs.rows]
    return {
        "loss": draw_loss(data["loss"], unit, narrow),
        "goals": draw_goals(inputs.metrics, data["goals"], inputs.latency, narrow),
        "size": draw_size(inputs.metrics, data["goals"], narrow),
        "weights": draw_weights(data["weights"], lengths, inputs.weight, narrow),
        "latency": draw_latency(inputs.latency, narrow),
        "methods": draw_methods(inputs.methods, narrow),
    }
