"""Draws the figures and writes the report: `python -m stages.plot`.

Reads  metrics/{metrics,evaluate,latency,clean,weight}.json, metrics/train/{sft,distilled}-<seed>_log.csv and
       metrics/train/distilled-<seed>.json (of the first training seed), metrics/{samples,regressions}.jsonl,
       metrics/methods.csv, data/weighted/train.jsonl,
       params data_seed, training_seeds, runtime, teachers, generate, clean, targets, weight, init, train, evaluate,
       plot
Writes metrics/figures/{loss,goals,size,weights,latency,methods}.png,
       metrics/plots/{loss,goals,size,weights,latency}.csv, metrics/report.md, metrics/report.html
"""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd

from distill.cards import model_card
from distill.core.errors import UserError, run_main
from distill.core.files import atomic_file, file_hash, read_json, read_rows, write_text
from distill.evaluation.goals import GOALS
from distill.params.loading import load_params
from distill.reporting import figures, methods_table, report
from distill.reporting import html as page
from distill.reporting.score_tables import MODELS
from distill.students.runs import TRAINED, Run

METRICS = Path("metrics")
WEIGHTED = Path("data/weighted/train.jsonl")
FIGURES = METRICS / "figures"
PLOTS = METRICS / "plots"
METHODS = METRICS / "methods.csv"
SAMPLES, REGRESSIONS = METRICS / "samples.jsonl", METRICS / "regressions.jsonl"
# the JSON files and the stages that write them
JSON = {
    "metrics": (METRICS / "metrics.json", "evaluate"),
    "evaluate": (METRICS / "evaluate.json", "evaluate"),
    "latency": (METRICS / "latency.json", "evaluate"),
    "clean": (METRICS / "clean.json", "clean"),
    "weight": (METRICS / "weight.json", "weight"),
}
LOG_COLUMNS = ["step", "epoch", "split", "loss", "phase"]


def read_inputs(samples: int, trained: Run) -> dict[str, Any]:
    """The JSON files by name, a run's record (`training`), `samples`, `regressions`, `methods`, the training `rows`.

    UserError names the stage whose file is at fault.
    """
    files = JSON | {"training": (trained.record, trained.stage)}
    found = {name: read_json(path, f"stage {stage}") for name, (path, stage) in files.items()}
    for name, (path, stage) in files.items():
        report.require(found[name], path, stage, report.NUMBERS[name], report.TEXTS.get(name, ()))
    reasons = report.at(found["clean"], "reasons") or ["*"]
    report.require(found["clean"], JSON["clean"][0], "clean", [f"reasons.{reason}" for reason in reasons])
    answered = ["reference", "messages.-1.content"]
    texts = [*answered, *(f"generated.{model}" for model in MODELS)]
    found["samples"] = read_table(SAMPLES, "evaluate", [], texts)[:samples]
    found["regressions"] = read_table(REGRESSIONS, "evaluate", report.NUMBERS["regressions"], answered)
    found["methods"] = methods_table.read(METHODS)
    texts = ["id", "prompt_id", "topic", "teacher", "messages.-1.content", "response"]
    found["rows"] = read_table(WEIGHTED, "weight", ["weight"], texts)
    if not found["rows"]:
        raise UserError(f"{WEIGHTED} has no rows. Stage weight writes it; metrics/clean.json says what was dropped.")
    return found


def read_table(path: Path, stage: str, numbers: Iterable[str], texts: Iterable[str]) -> list[dict[str, Any]]:
    """The rows of a JSONL file, each with the numbers and texts that the report needs of it."""
    rows = list(read_rows(path, f"stage {stage}"))
    for place, row in enumerate(rows, start=1):
        report.require(row, f"{path}, line {place},", stage, numbers, texts)
    return rows


def read_log(of: Run) -> pd.DataFrame:
    """The losses of a run by step, variant, training, split, epoch. UserError where the file is missing or broken."""
    path = of.record.with_name(f"{of.name}_log.csv")
    writer = f"Stage {of.stage} writes it: make it again with `dvc repro {of.stage}`."
    if not path.exists():
        raise UserError(f"{path} is missing. {writer}")
    try:
        log = pd.read_csv(path)[LOG_COLUMNS].astype({"epoch": float, "loss": float})
    except (ValueError, KeyError) as error:
        raise UserError(f"{path} is no table of {', '.join(LOG_COLUMNS)} ({str(error)[:100]}). {writer}") from None
    if log.empty or not np.isfinite(log[["epoch", "loss"]]).all(axis=None):
        raise UserError(f"{path} has no losses, or one that is not finite. {writer}")
    return log.assign(variant=of.variant)[["step", "variant", "phase", "split", "epoch", "loss"]]


def main() -> None:
    params = load_params()
    sft, distilled = (Run(variant, params.training_seeds[0]) for variant in TRAINED)
    inputs = read_inputs(params.plot.num_samples, distilled)
    metrics, latency, weight = inputs["metrics"], inputs["latency"], inputs["weight"]
    words = [len(row["response"].split()) for row in inputs["rows"]]
    spreads = report.histogram("weight", [row["weight"] for row in inputs["rows"]], 0.05)
    tables = {
        "loss": pd.concat([read_log(sft), read_log(distilled)]),
        "goals": pd.DataFrame(report.score_rows(metrics, inputs["evaluate"]["models"])),
        "size": pd.DataFrame(report.size_rows(metrics)),
        "weights": pd.DataFrame(spreads + report.histogram("words", words, 1)),
        "latency": pd.DataFrame(report.latency_rows(latency)),
    }
    unit = "token" if params.generate.class_labels is None else "label"
    mpl.rcdefaults()  # a matplotlibrc of the user's would change the bytes
    mpl.rcParams.update(figures.STYLE)
    wide, narrow = (
        {
            "loss": figures.draw_loss(tables["loss"], unit, small),
            "goals": figures.draw_goals(metrics, tables["goals"], latency, small),
            "size": figures.draw_size(metrics, tables["goals"], small),
            "weights": figures.draw_weights(tables["weights"], words, weight, small),
            "latency": figures.draw_latency(latency, small),
            "methods": figures.draw_methods(inputs["methods"], small),
        }
        for small in (False, True)
    )
    drawn = {name: page.Figure(figures.svg(wide[name]), figures.svg(narrow[name])) for name in wide}
    choices = {
        "data_seed": params.data_seed,
        "training_seeds": params.training_seeds,
        "runtime": params.runtime.model_dump(),
        "teachers": [teacher.model_dump() for teacher in params.teachers],
        "generate": params.generate.model_dump(),
        "clean": params.clean.model_dump(),
        "targets": params.targets and params.targets.model_dump(),
        "weight": params.weight.model_dump(),
        "init": params.init.model_dump(),
        "train": params.train.model_dump(),
        "evaluate": params.evaluate.model_dump(),
        "plot": params.plot.model_dump(),
    }
    files = [WEIGHTED, *(path for path, _ in JSON.values()), distilled.record, SAMPLES, REGRESSIONS, METHODS]
    lineage = model_card.lineage(params, distilled, inputs["rows"], [WEIGHTED])
    html = page.render(inputs, drawn, lineage, choices, {str(path): file_hash(path) for path in files})
    for name, table in tables.items():
        with atomic_file(PLOTS / f"{name}.csv") as path:
            table.to_csv(path, index=False, lineterminator="\n")
    for name, figure in wide.items():
        with atomic_file(FIGURES / f"{name}.png") as path:
            figure.savefig(path, format="png", dpi=params.plot.dpi, metadata={"Software": None})
    text = report.markdown(inputs)
    write_text(METRICS / "report.md", text)
    write_text(METRICS / "report.html", html)
    print(f"{METRICS / 'report.html'}: {metrics['goals']['met']} of {len(GOALS)} goals met")


if __name__ == "__main__":
    run_main(main)
