"""Draws the figures and writes the report: `python -m stages.plot`.

Reads  metrics/{metrics,evaluate,latency,clean,weight}.json, metrics/train/{sft,distilled}-<seed>_log.csv and
       metrics/train/distilled-<seed>.json (of the first training seed), metrics/{samples,regressions}.jsonl,
       metrics/methods.csv, data/weighted/train.jsonl,
       params data_seed, training_seeds, runtime, teachers, generate, clean, targets, weight, init, train, evaluate,
       plot
Writes metrics/figures/{loss,goals,size,weights,latency,methods}.png,
       metrics/plots/{loss,goals,size,weights,latency}.csv, metrics/report.md, metrics/report.html
"""

import os
from pathlib import Path
from typing import Any

import matplotlib as mpl
import pandas as pd
from pydantic import BaseModel

from distill.cards.provenance import provenance
from distill.core.errors import run_main
from distill.core.files import atomic_file, file_hash, write_text
from distill.evaluation.goals import few_items_warning
from distill.params.loading import load_params
from distill.params.schema import Params
from distill.reporting import html, report
from distill.reporting.figure_data import figure_data
from distill.reporting.figures.draw import draw_figures
from distill.reporting.figures.style import STYLE, svg
from distill.reporting.inputs import Inputs, Source, read_inputs, read_log
from distill.reporting.main_table import goals_met
from distill.students.runs import TRAINED, Run

METRICS = Path("metrics")
WEIGHTED = Path("data/weighted/train.jsonl")
FIGURES = METRICS / "figures"
PLOTS = METRICS / "plots"
METHODS = METRICS / "methods.csv"
SOURCES = {
    "metrics": Source(METRICS / "metrics.json", "evaluate"),
    "evaluate": Source(METRICS / "evaluate.json", "evaluate"),
    "latency": Source(METRICS / "latency.json", "evaluate"),
    "clean": Source(METRICS / "clean.json", "clean"),
    "weight": Source(METRICS / "weight.json", "weight"),
    "samples": Source(METRICS / "samples.jsonl", "evaluate"),
    "regressions": Source(METRICS / "regressions.jsonl", "evaluate"),
    "rows": Source(WEIGHTED, "weight"),
}


def choices(params: Params) -> dict[str, Any]:
    """The sections of params.yaml as plain values."""
    sections = {
        "data_seed": params.data_seed,
        "training_seeds": params.training_seeds,
        "runtime": params.runtime,
        "teachers": params.teachers,
        "generate": params.generate,
        "clean": params.clean,
        "targets": params.targets,
        "weight": params.weight,
        "init": params.init,
        "train": params.train,
        "evaluate": params.evaluate,
        "plot": params.plot,
    }
    return {name: plain(value) for name, value in sections.items()}


def plain(value: Any) -> Any:
    """The value of a section, or of a list of them, without classes."""
    if isinstance(value, list):
        return [plain(item) for item in value]
    return value.model_dump() if isinstance(value, BaseModel) else value


def write_figures(inputs: Inputs, data: dict[str, pd.DataFrame], params: Params) -> dict[str, html.Image]:
    """Writes the tables behind the figures and the figures as PNG; returns the images of the page by name."""
    mpl.rcdefaults()  # a matplotlibrc of the user's would change the bytes
    mpl.rcParams.update(STYLE)
    unit = "token" if params.generate.class_labels is None else "label"
    wide, narrow = (draw_figures(inputs, data, unit, narrow) for narrow in (False, True))
    images = {name: html.Image(svg(wide[name]), svg(narrow[name])) for name in wide}
    for name, table in data.items():
        with atomic_file(PLOTS / f"{name}.csv") as path:
            table.to_csv(path, index=False, lineterminator="\n")
    for name, figure in wide.items():
        with atomic_file(FIGURES / f"{name}.png") as path:
            figure.savefig(path, format="png", dpi=params.plot.dpi, metadata={"Software": None})
    return images


def main() -> None:
    params = load_params()
    sft, distilled = (Run(variant, params.training_seeds[0]) for variant in TRAINED)
    sources = SOURCES | {"record": Source(distilled.record, distilled.stage)}
    inputs = read_inputs(sources, METHODS, params.plot.num_samples)
    log = pd.concat([read_log(sft), read_log(distilled)])
    images = write_figures(inputs, figure_data(inputs, log), params)
    files = {str(source.path): file_hash(source.path) for source in sources.values()}
    origin = provenance(params, distilled, inputs.rows, [WEIGHTED])
    sections = report.sections(inputs) + report.appendix(inputs, origin, choices(params), files)
    write_text(METRICS / "report.md", report.markdown(inputs))
    write_text(METRICS / "report.html", html.render(report.TITLE, report.introduction(inputs), sections, images))
    warnings = few_items_warning(inputs.evaluate["items"])
    print(f"{METRICS / 'report.html'}: {goals_met(inputs.metrics)}", *warnings, sep="\n")


if __name__ == "__main__":
    run_main(main, os.environ)
