"""The rows behind the figures, and tables and the report as markdown, the same in report, README and terminal."""

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from distill.cards import data_card, model_card
from distill.cards.document import Data, Section, Table, number
from distill.cards.markdown import quoted, section, table
from distill.core.errors import UserError
from distill.core.numbers import round_number
from distill.evaluation.goals import GOALS, Goal
from distill.reporting import methods_table, score_tables
from distill.reporting.score_tables import ESTIMATE, MODELS, SCORES, intervals, statistics

ROLES = {"teacher": "the model to match"} | model_card.ROLES
MEASURED = (
    "All scores are measured on held-out topics, of which training saw nothing. Perplexity is per token of the "
    "teacher for all models; top-1 agreement is the share of the teacher's tokens that a model ranks first after the "
    "teacher's own text. Intervals are 95% bootstrap intervals over items."
)
GOALS_NOTE = (
    "In the figure the intervals of the accuracy ratio take the teacher's accuracy as given; those of the latency "
    "gain are the quartiles of the model's runs."
)
LABELS_NOTE = (
    "Each prompt is answered by the likeliest of a closed set of labels. Accuracy, F1 and calibration are against the "
    "prompts' own labels where these are given, and otherwise against the teacher's. Elsewhere in this report a label "
    "counts as one token: perplexity is of the teacher's label within the set, top-1 agreement the share of labels "
    "that are the teacher's."
)
GAIN_NOTE = (
    "`sft` learnt from the same rows for as many steps. Where two intervals overlap, this table cannot tell the two "
    "apart; `metrics/items.csv` has every item of both for a paired test."
)
AGAIN = (
    "`dvc repro` makes all of it and does again only what changed. `dvc.lock` names every input, parameter and "
    "output by its hash; `git checkout REVISION && dvc checkout` brings those of a revision back."
)
QUARTILES = ("low", "high", "median")
TIMINGS = ("time_to_first_token_ms", "decode_tokens_per_s", "response_ms")
COLUMNS = (
    "accuracy",
    "accuracy_ci_low",
    "accuracy_ci_high",
    "perplexity",
    "top1_agreement",
    "rouge_l",
    "parameters",
    "bytes",
)
# the numbers that a report needs of each file of metrics/
NUMBERS = {
    "metrics": [f"{model}.{column}" for model in MODELS for column in COLUMNS]
    + [f"goals.{name}" for name in (*(goal.name for goal in GOALS), "accuracy_ratio_above_chance", "met")],
    "evaluate": [f"models.{model}.{score}.{part}" for model in MODELS for score in SCORES for part in ESTIMATE]
    + ["items", "held_out", "generations"],
    "latency": ["prompt_tokens", "new_tokens", "num_runs"]
    + [f"models.{model}.{timing}.{part}" for model in MODELS for timing in TIMINGS for part in QUARTILES],
    "clean": ["requested", "kept", "dropped"]
    + [f"splits.{split}.{part}" for split in ("train", "validation", "test") for part in ("topics", "rows", "words")],
    "weight": ["ess_fraction", "strength"]
    + [f"{part}.{key}" for part in ("words", "weights") for key in (*data_card.QUARTILES, "mean")],
    "training": ["parameters", "steps", "response_tokens"],
    "regressions": ["teacher_nll", "distilled_nll", "tokens"],
}
TEXTS = {"weight": ["kind"], "training": ["source", "loss"]}


def require(value: Any, path: object, stage: str, numbers: Iterable[str] = (), texts: Iterable[str] = ()) -> None:
    """Raises UserError where a dotted path leads to no finite number, or no text, in the value read from `path`."""
    for kind, wanted in (("number", numbers), ("text", texts)):
        for dotted in wanted:
            found = at(value, dotted)
            finite = isinstance(found, int | float) and not isinstance(found, bool) and math.isfinite(found)
            if not (finite if kind == "number" else isinstance(found, str)):
                raise UserError(
                    f"{path} must have a {kind} at {dotted}, but has {str(found)[:60]!r} there. Stage {stage} writes "
                    f"it: make it again with `dvc repro --force --single-item {stage}`."
                )


def at(value: Any, dotted: str) -> Any:
    """What `messages.-1.content` leads to in mappings and lists, None where it leads nowhere."""
    for key in dotted.split("."):
        try:
            value = value[int(key)] if isinstance(value, list) else value[key]
        except (KeyError, IndexError, TypeError, ValueError):
            return None
    return value


def score_rows(metrics: dict[str, Any], models: dict[str, Any]) -> list[dict[str, Any]]:
    """Every score with its interval, and the two ratios to the teacher: model, score, ci_low, ci_high, value.

    The ratio of accuracies takes the teacher's own as given; that of parameters has no interval.
    """
    rows = []
    for model in MODELS:
        accuracy = {key: models[model]["accuracy"][key] / metrics["teacher"]["accuracy"] for key in ESTIMATE}
        size = dict.fromkeys(ESTIMATE, metrics[model]["parameters"] / metrics["teacher"]["parameters"])
        ratios = {"accuracy_ratio": accuracy, "compression_ratio": size}
        for score, estimate in (models[model] | ratios).items():
            if score in SCORES or score in ratios:
                rows.append({"model": model, "score": score} | {key: round_number(estimate[key]) for key in ESTIMATE})
    return rows


def size_rows(metrics: dict[str, Any]) -> list[dict[str, Any]]:
    """Quality against size: model, parameters, bytes, perplexity, accuracy, top-1 agreement."""
    columns = ("parameters", "bytes", "perplexity", "accuracy", "top1_agreement")
    return [{"model": model} | {key: metrics[model][key] for key in columns} for model in MODELS]


def latency_rows(latency: dict[str, Any]) -> list[dict[str, Any]]:
    """Every timing with its quartiles: model, timing, low, high, median."""
    return [
        {"model": model, "timing": timing} | {key: latency["models"][model][timing][key] for key in QUARTILES}
        for model in MODELS
        for timing in TIMINGS
    ]


def histogram(quantity: str, values: Sequence[float], least: float) -> list[dict[str, Any]]:
    """Counts in some 40 bins [low, high) of a round width, 1, 2 or 5 times a power of ten and at least `least`."""
    wanted = max((max(values) - min(values)) / 40, least)
    power = 10.0 ** math.floor(math.log10(wanted))
    width = next(step * power for step in (1, 2, 5, 10) if step * power >= wanted * (1 - 1e-9))
    counts = Counter(math.floor(value / width + 1e-9) for value in values)
    return [
        {
            "quantity": quantity,
            "low": round(bin * width, 9),
            "high": round((bin + 1) * width, 9),
            "samples": counts[bin],
        }
        for bin in range(min(counts), max(counts) + 1)
    ]


def decided(goal: Goal, value: float) -> str:
    """The value with as many digits as show on which side of the goal it is: 20.01, not 20, where 20 is met."""
    texts = (number(value, digits) for digits in range(3, 17))
    return next((text for text in texts if goal.met(float(text.replace(",", ""))) == goal.met(value)), repr(value))


def results(metrics: dict[str, dict[str, Any]]) -> Table:
    """The four models by row, from metrics.json."""
    header = ["model", "parameters", "on disk", "accuracy [95% interval]", "perplexity", "top-1 agreement", "ROUGE-L"]
    rows = [
        [
            name,
            f"{row['parameters'] / 1e6:.1f} M",
            f"{row['bytes'] / 1e6:.0f} MB",
            f"{row['accuracy']:.3f} [{row['accuracy_ci_low']:.3f}, {row['accuracy_ci_high']:.3f}]",
            number(row["perplexity"]),
            f"{row['top1_agreement']:.3f}",
            f"{row['rouge_l']:.3f}",
        ]
        for name, row in ((name, metrics[name]) for name in MODELS)
    ]
    return Table(header, rows)


def goals(metrics: dict[str, dict[str, Any]]) -> Table:
    """The four goals by row, from metrics.json."""
    rows = []
    for goal in GOALS:
        value = metrics["goals"][goal.name]
        verdict = "met" if goal.met(value) else "**not met**"
        rows.append([goal.name.replace("_", " "), decided(goal, value), goal.condition, verdict, goal.meaning])
    return Table(["goal", "value", "wanted", "", "of what"], rows, "lrrll")


def measured_on(scores: Mapping[str, Any]) -> str:
    """On how many of the held-out answers all scores are measured, from evaluate.json."""
    items, pool = scores["items"], scores["held_out"]
    part = f"{items:,} of {pool:,}" if items < pool else f"all {pool:,}"
    return (
        f"Measured on {part} held-out answers; what the models write themselves, as ROUGE-L, on "
        f"{scores['generations']:,} of these."
    )


def goals_met(metrics: dict[str, dict[str, Any]]) -> str:
    """How many goals are met, in a sentence."""
    return (
        f"{metrics['goals']['met']} of {len(GOALS)} goals met. Above chance the accuracy ratio is "
        f"{metrics['goals']['accuracy_ratio_above_chance']:.3f}."
    )


def gain(models: dict[str, dict[str, Any]]) -> Table:
    """What the loss under test brought over cross-entropy on the same data, and whether the intervals are apart."""
    rows = []
    for score in ("accuracy", "perplexity", "top1_agreement", "rouge_l"):
        name, more = SCORES[score]
        sft, distilled = models["sft"][score], models["distilled"][score]
        ahead = (distilled["value"] > sft["value"]) == more and distilled["value"] != sft["value"]
        overlap = distilled["ci_low"] <= sft["ci_high"] and sft["ci_low"] <= distilled["ci_high"]
        verdict = "distilled" if ahead else "neither" if distilled["value"] == sft["value"] else "sft"
        rows.append(
            [name, number(sft["value"]), number(distilled["value"]), verdict, "overlap" if overlap else "apart"]
        )
    return Table(["score", "sft", "distilled", "ahead", "intervals"], rows, "lrrll")


def answers(sample: Mapping[str, Any]) -> Table:
    """What each model wrote to a prompt, from a row of samples.jsonl or regressions.jsonl; null is left out."""
    given = [["teacher, as stored", Data(sample["reference"])]]
    given += [[name, Data(sample["generated"][name])] for name in MODELS if sample["generated"].get(name) is not None]
    return Table(["model", "answer"], given, "ll")


def side_by_side(samples: Sequence[dict[str, Any]]) -> list[str]:
    """Held-out prompts with what each model answered, a paragraph each, from samples.jsonl."""
    return [
        part
        for sample in samples
        for part in (f"**{quoted(sample['messages'][-1]['content'])}**", table(answers(sample)))
    ]


def markdown(inputs: Mapping[str, Any]) -> str:
    """The whole report, from what stage plot reads.

    Table, goals, figures, what distillation brought, methods, data, samples, how to make it again.
    """
    metrics, scores, clean, weight = (inputs[name] for name in ("metrics", "evaluate", "clean", "weight"))
    samples, methods = inputs["samples"], inputs["methods"]
    correlation = weight["correlation_with_length"]
    parts = [
        "# Report",
        MEASURED,
        table(results(metrics)),
        measured_on(scores),
        "\n".join(f"- `{name}`: {role}" for name, role in ROLES.items()),
        "## Goals",
        table(goals(metrics)),
        goals_met(metrics),
        "![The four goals for the four models](figures/goals.png)",
        GOALS_NOTE,
        "## What distillation brought",
        table(gain(scores["models"])),
        GAIN_NOTE,
        "![Accuracy and top-1 agreement against parameters](figures/size.png)",
        "![Latency at batch 1](figures/latency.png)",
        *(["## Labels", LABELS_NOTE, *map(table, labels)] if (labels := score_tables.classification(scores)) else []),
        "## Every score",
        table(intervals(scores["models"])),
        *map(table, statistics(scores)),
        "## Methods side by side",
        methods_table.note(methods),
        *map(table, methods_table.tables(methods)),
        "![Perplexity and top-1 agreement of each method](figures/methods.png)",
        "## Training",
        "![Loss curves](figures/loss.png)",
        section(Section("Data", data_card.kept(clean).blocks)),
        f"Weights: kind {weight['kind']}, effective sample size {weight['ess_fraction']:.0%} of the rows"
        + (f", rank correlation with length {correlation:.2f}." if correlation is not None else "."),
        "![Weights and lengths](figures/weights.png)",
        *(["## Held-out answers side by side"] if samples else []),
        *side_by_side(samples),
        "## Make it again",
        AGAIN,
    ]
    return "\n\n".join(parts) + "\n"
