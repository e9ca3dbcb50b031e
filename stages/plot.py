"""Draws the figures and writes the report: `python -m stages.plot`.

Reads  metrics/{metrics,evaluate,latency,clean,weight}.json, metrics/train/{sft,distilled}_log.csv,
       metrics/samples.jsonl, data/weighted/train.jsonl, params plot
Writes metrics/figures/{loss,goals,size,weights,latency}.png, metrics/plots/{loss,goals,size,weights,latency}.csv,
       metrics/report.md
"""

from pathlib import Path
from typing import Any

import matplotlib as mpl
import pandas as pd
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from distill import params as params_file
from distill import report
from distill.errors import UserError, run
from distill.files import read_json, read_rows, whole_file, write_text
from distill.goals import GOALS

METRICS = Path("metrics")
WEIGHTED = Path("data/weighted/train.jsonl")
FIGURES = METRICS / "figures"
PLOTS = METRICS / "plots"
# Okabe and Ito's colours: told apart by colour-blind readers too
COLOURS = {"teacher": "#333333", "init": "#999999", "sft": "#E69F00", "distilled": "#0072B2"}
SPLITS = {"train": ":", "validation": "-"}
STYLE: Any = {
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 11,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.labelsize": 9,
    "xtick.labelsize": 9,
    "ytick.labelsize": 9,
    "font.size": 9,
    "legend.frameon": False,
    "figure.constrained_layout.use": True,
}


def loss_table(logs: dict[str, pd.DataFrame]) -> pd.DataFrame:
    """The logs of all variants: step, variant, split, epoch, loss."""
    return pd.concat([log.assign(variant=name) for name, log in logs.items()], ignore_index=True)[
        ["step", "variant", "split", "epoch", "loss"]
    ]


def score_table(scores: dict[str, Any]) -> pd.DataFrame:
    """Every score with its interval: model, score, value, ci_low, ci_high."""
    return pd.DataFrame(
        [
            {"model": model, "score": score} | estimate
            for model in report.MODELS
            for score, estimate in scores["models"][model].items()
        ]
    )


def size_table(metrics: dict[str, Any]) -> pd.DataFrame:
    """Quality against size: model, parameters, bytes, accuracy, perplexity, agreement."""
    columns = ["parameters", "bytes", "accuracy", "perplexity", "agreement"]
    return pd.DataFrame([{"model": name} | {key: metrics[name][key] for key in columns} for name in report.MODELS])


def weight_table(rows: list[dict[str, Any]]) -> pd.DataFrame:
    """One row a training sample: words of the response, weight."""
    return pd.DataFrame([{"words": len(row["response"].split()), "weight": row["weight"]} for row in rows])


def latency_table(latency: dict[str, Any]) -> pd.DataFrame:
    """Median and quartiles of every timing: model, timing, median, low, high."""
    return pd.DataFrame(
        [
            {"model": model, "timing": timing} | values
            for model in report.MODELS
            for timing, values in latency["models"][model].items()
        ]
    )


def draw_loss(table: pd.DataFrame) -> Figure:
    """Validation loss of the variants, comparable, and the training loss of each, in units of its own."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.4))
    for axes, split in ((left, "validation"), (right, "train")):
        for variant, rows in table[(table.split == split) & (table.epoch > 0)].groupby("variant", sort=False):
            axes.plot(rows.epoch, rows.loss, color=COLOURS[str(variant)], marker="o" if split == "validation" else None,
                      markersize=4)  # fmt: skip
            axes.annotate(
                f" {variant}", (rows.epoch.iloc[-1], rows.loss.iloc[-1]), color=COLOURS[str(variant)], va="center"
            )
        axes.set_xlabel("epoch")
        axes.margins(x=0.16)
    left.set_title("Held-out topics: nats per token of the teacher")
    right.set_title("Training: each variant's own loss, nats per token")
    right.set_yscale("log")
    return figure


def draw_goals(metrics: dict[str, Any], scores: dict[str, Any], latency: dict[str, Any]) -> Figure:
    """The four goals for the four models, with intervals, and the line that `distilled` must reach."""
    figure, panels = plt.subplots(1, 4, figsize=(10, 3.4))
    teacher = metrics["teacher"]
    seconds = {name: latency["models"][name]["answer_ms"] for name in report.MODELS}
    base = seconds["teacher"]["median"]
    bars = {
        "accuracy_ratio": [
            [scores["models"][name]["accuracy"][key] / teacher["accuracy"] for key in ("value", "ci_low", "ci_high")]
            for name in report.MODELS
        ],
        "perplexity": [
            [scores["models"][name]["perplexity"][key] for key in ("value", "ci_low", "ci_high")]
            for name in report.MODELS
        ],
        "compression_ratio": [[metrics[name]["parameters"] / teacher["parameters"]] * 3 for name in report.MODELS],
        "latency_gain": [[base / seconds[name][key] for key in ("median", "high", "low")] for name in report.MODELS],
    }
    for axes, goal in zip(panels, GOALS, strict=True):
        _bars(axes, bars[goal.name])
        axes.axhline(goal.threshold, color="#D55E00", linewidth=1.2, linestyle="--", zorder=0)
        axes.set_title(goal.name.replace("_", " "))
        axes.set_xlabel(f"wanted {goal.condition}", color="#D55E00")
        if goal.name == "perplexity":
            axes.set_yscale("log")
    return figure


def _bars(axes: Axes, values: list[list[float]]) -> None:
    for place, (name, (value, low, high)) in enumerate(zip(report.MODELS, values, strict=True)):
        axes.bar(place, value, color=COLOURS[name], width=0.7)
        if high > low:
            axes.errorbar(place, value, [[max(0, value - low)], [max(0, high - value)]], color="black", capsize=3, lw=1)
        axes.annotate(
            report.number(value), (place, high), ha="center", va="bottom", xytext=(0, 3), textcoords="offset points"
        )
    axes.set_xticks(range(len(report.MODELS)), report.MODELS, rotation=30, ha="right")
    axes.margins(y=0.14)


def draw_size(table: pd.DataFrame) -> Figure:
    """Agreement with the teacher against the number of parameters."""
    figure, axes = plt.subplots(figsize=(5.5, 3.4))
    for row in table.itertuples():
        axes.scatter(row.parameters / 1e6, row.agreement, color=COLOURS[row.model], s=60, zorder=3)
        axes.annotate(
            f"{row.model} {row.agreement:.2f}", (row.parameters / 1e6, row.agreement), xytext=(8, 0),
            textcoords="offset points", color=COLOURS[row.model], va="center",
        )  # fmt: skip
    axes.set_xlabel("million parameters")
    axes.set_ylabel("tokens on which the teacher is matched")
    axes.set_title("Quality against size, held-out topics")
    axes.set_ylim(-0.05, 1.05)
    axes.set_xlim(0, table.parameters.max() / 1e6 * 1.25)
    axes.grid(alpha=0.25)
    return figure


def draw_weights(table: pd.DataFrame) -> Figure:
    """How weights and lengths are spread."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3))
    left.hist(table.weight, bins=40, color=COLOURS["distilled"])
    left.axvline(1, color="black", linewidth=1, linestyle="--")
    left.set_title("Sample weights (mean 1)")
    left.set_xlabel("weight")
    left.set_ylabel("training samples")
    right.hist(table.words, bins=40, color=COLOURS["sft"])
    right.set_title("Response lengths")
    right.set_xlabel("words")
    return figure


def draw_latency(table: pd.DataFrame) -> Figure:
    """Median and quartiles of the timings at batch 1."""
    figure, panels = plt.subplots(1, 2, figsize=(9, 3.2))
    titles = {"time_to_first_token_ms": "Time to first token, ms", "decode_tokens_per_s": "Decoding, tokens/s"}
    for axes, (timing, title) in zip(panels, titles.items(), strict=True):
        rows = table[table.timing == timing].set_index("model").loc[list(report.MODELS)]
        _bars(axes, rows[["median", "low", "high"]].to_numpy().tolist())
        axes.set_title(title)
    figure.supxlabel("batch 1, median and quartiles", fontsize=9)
    return figure


def markdown(
    metrics: dict[str, Any], clean: dict[str, Any], weight: dict[str, Any], samples: list[dict[str, Any]]
) -> str:
    """The report: table, goals, figures, data, samples side by side."""
    dropped = [[reason.replace("_", " "), f"{count:,}"] for reason, count in clean["reasons"].items() if count]
    splits = [
        [name, f"{part['topics']:,}", f"{part['rows']:,}", f"{part['words']:,}"]
        for name, part in clean["splits"].items()
    ]
    parts = [
        "# Report",
        "All scores are measured on held-out topics, of which training saw nothing. Perplexity is per token of the "
        "teacher for all models; agreement is the share of the teacher's tokens that a model ranks first after the "
        "teacher's own text. Intervals are 95% bootstrap intervals over items.",
        report.results(metrics),
        "\n".join(f"- `{name}`: {role}" for name, role in report.ROLES.items()),
        "## Goals",
        report.goals(metrics),
        f"{metrics['goals']['met']} of {len(GOALS)} goals met. Above chance the accuracy ratio is "
        f"{metrics['goals']['accuracy_ratio_above_chance']:.3f}.",
        "![The four goals for the four models](figures/goals.png)",
        "![Agreement against parameters](figures/size.png)",
        "![Latency at batch 1](figures/latency.png)",
        "## Training",
        "![Loss curves](figures/loss.png)",
        "## Data",
        f"{clean['requested']:,} answers were asked for, {clean['kept']:,} kept and {clean['dropped']:,} dropped.",
        report.table(["split", "topics", "rows", "words"], splits),
        report.table(["dropped because", "rows"], dropped),
        f"Weights: scheme {weight['scheme']}, effective sample size {weight['effective_share']:.0%} of the rows.",
        "![Weights and lengths](figures/weights.png)",
        "## Held-out answers side by side",
    ]
    for sample in samples:
        rows = [["teacher (stored)", report.quoted(sample["reference"])]]
        rows += [[name, report.quoted(sample["generated"][name])] for name in report.MODELS]
        parts += [f"**{report.quoted(sample['messages'][-1]['content'])}**", report.table(["model", "answer"], rows)]
    parts.append(
        "Made by `dvc repro`; `dvc.lock` names every input, parameter and output by its hash, and "
        "`git checkout REVISION && dvc checkout` brings them back."
    )
    return "\n\n".join(parts) + "\n"


def save(figure: Figure, name: str, dpi: int) -> None:
    """Writes metrics/figures/<name>.png without anything that differs between two runs."""
    with whole_file(FIGURES / f"{name}.png") as path:
        figure.savefig(path, format="png", dpi=dpi, metadata={"Software": None})
    plt.close(figure)


def main() -> None:
    params = params_file.load()
    mpl.use("Agg")
    mpl.rcParams.update(STYLE)
    metrics = read_json(METRICS / "metrics.json", "stage evaluate")
    scores = read_json(METRICS / "evaluate.json", "stage evaluate")
    latency = read_json(METRICS / "latency.json", "stage evaluate")
    clean = read_json(METRICS / "clean.json", "stage clean")
    weight = read_json(METRICS / "weight.json", "stage weight")
    samples = list(read_rows(METRICS / "samples.jsonl", "stage evaluate"))[: params.plot.samples]
    logs = {}
    for variant in ("sft", "distilled"):
        path = METRICS / "train" / f"{variant}_log.csv"
        if not path.exists():
            raise UserError(f"{path} is missing; stage train@{variant} writes it (`dvc repro train@{variant}`).")
        logs[variant] = pd.read_csv(path)
    tables = {
        "loss": loss_table(logs),
        "goals": score_table(scores),
        "size": size_table(metrics),
        "weights": weight_table(list(read_rows(WEIGHTED, "stage weight"))),
        "latency": latency_table(latency),
    }
    for name, table in tables.items():
        with whole_file(PLOTS / f"{name}.csv") as path:
            table.to_csv(path, index=False, lineterminator="\n")
    figures = {
        "loss": draw_loss(tables["loss"]),
        "goals": draw_goals(metrics, scores, latency),
        "size": draw_size(tables["size"]),
        "weights": draw_weights(tables["weights"]),
        "latency": draw_latency(tables["latency"]),
    }
    for name, figure in figures.items():
        save(figure, name, params.plot.dpi)
    write_text(METRICS / "report.md", markdown(metrics, clean, weight, samples))
    print(f"{METRICS / 'report.md'}: {metrics['goals']['met']} of {len(GOALS)} goals met")


if __name__ == "__main__":
    run(main)
