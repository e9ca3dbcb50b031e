"""The main table, the goals and the comparison with fine-tuning, the same in report, README, card and terminal."""

from collections.abc import Mapping
from typing import Any

from distill.cards.document import Scorecard, Table, format_number
from distill.evaluation.goals import GOALS, Goal
from distill.reporting.score_tables import MODELS, SCORES

MEASURED = (
    "All scores are on held-out topics that training never saw. Perplexity is per teacher token for all models. "
    "Top-1 agreement is the fraction of the teacher's tokens that a model ranks first, given the teacher's text before "
    "them. Intervals are 95% bootstrap intervals over items."
)
COMPARED = ("accuracy", "perplexity", "top1_agreement", "rouge_l")  # scores of sft and distilled
Scores = Mapping[str, Mapping[str, Any]]


def results(metrics: Scores) -> Table:
    """The four models by row, from metrics.json."""
    header = ["model", "parameters", "on disk", "accuracy [95% interval]", "perplexity", "top-1 agreement", "ROUGE-L"]
    rows = [
        [
            name,
            f"{row['parameters'] / 1e6:.1f} M",
            f"{row['bytes'] / 1e6:.0f} MB",
            f"{row['accuracy']:.3f} [{row['accuracy_ci_low']:.3f}, {row['accuracy_ci_high']:.3f}]",
            format_number(row["perplexity"]),
            f"{row['top1_agreement']:.3f}",
            f"{row['rouge_l']:.3f}",
        ]
        for name, row in ((name, metrics[name]) for name in MODELS)
    ]
    return Table(header, rows)


def goals(metrics: Scores) -> Scorecard:
    """The four goals by row, from metrics.json."""
    rows = []
    for goal in GOALS:
        value = metrics["goals"][goal.name]
        status = "met" if goal.met(value) else "**not met**"
        rows.append([goal.name.replace("_", " "), format_goal(goal, value), goal.condition, status, goal.meaning])
    return Scorecard(["goal", "value", "required", "status", "definition"], rows, "lrrll")


def format_goal(goal: Goal, value: float) -> str:
    """The value with as many digits as show on which side of the goal it is: 20.01, not 20, where 20 is met."""
    texts = (format_number(value, digits) for digits in range(3, 17))
    return next((text for text in texts if goal.met(float(text.replace(",", ""))) == goal.met(value)), repr(value))


def goals_met(metrics: Scores) -> str:
    """The number of goals met, in a sentence."""
    return (
        f"{metrics['goals']['met']} of {len(GOALS)} goals are met. Above chance, the accuracy ratio is "
        f"{metrics['goals']['accuracy_ratio_above_chance']:.3f}."
    )


def measured_on(scores: Mapping[str, Any]) -> str:
    """The number of held-out responses that all scores are measured on, from evaluate.json."""
    items, pool = scores["items"], scores["held_out"]
    fraction = f"{items:,} of {pool:,}" if items < pool else f"all {pool:,}"
    return (
        f"Measured on {fraction} held-out responses; ROUGE-L, which needs generated text, on "
        f"{scores['generations']:,} of these."
    )


def comparison(models: Scores) -> Table:
    """Scores of the distillation loss and of cross-entropy on the same data, from evaluate.json."""
    rows = []
    for score in COMPARED:
        title, more_is_better = SCORES[score]
        sft, distilled = models["sft"][score], models["distilled"][score]
        if distilled["value"] == sft["value"]:
            best = "neither"
        else:
            best = "distilled" if (distilled["value"] > sft["value"]) == more_is_better else "sft"
        overlap = distilled["ci_low"] <= sft["ci_high"] and sft["ci_low"] <= distilled["ci_high"]
        values = [format_number(estimate["value"]) for estimate in (sft, distilled)]
        rows.append([title, *values, best, "overlap" if overlap else "disjoint"])
    return Table(["score", "sft", "distilled", "better", "intervals"], rows, "lrrll")
