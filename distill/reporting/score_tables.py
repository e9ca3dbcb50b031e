"""Whether a difference is more than noise: in words, the same wherever two results are compared."""

import json
from collections.abc import Callable, Iterable
from typing import Any

from distill.cards.document import Data, Table, flat, number

BETTER, WORSE, NOISE = "better", "worse", "within noise"


def verdict(ci_low: float, ci_high: float, more_is_better: bool) -> str:
    """Better or worse where the interval of a difference leaves zero out."""
    if ci_low <= 0 <= ci_high:
        return NOISE
    return BETTER if (ci_low > 0) == more_is_better else WORSE


MODELS = ("teacher", "init", "sft", "distilled")
# score of evaluate.json: name, whether more is better
SCORES = {
    "accuracy": ("accuracy", True),
    "accuracy_norm": ("accuracy, by length", True),
    "accuracy_above_chance": ("accuracy above chance", True),
    "perplexity": ("perplexity", False),
    "bits_per_byte": ("bits per byte", False),
    "top1_agreement": ("top-1 agreement", True),
    "rouge_l": ("ROUGE-L", True),
    "token_match": ("token match", True),
}
ESTIMATE = ("ci_low", "ci_high", "value")


def intervals(models: dict[str, dict[str, Any]]) -> Table:
    """Every score with its 95% interval, the models by column, from evaluate.json; those of SCORES come first."""
    rows = []
    for score in _keys(models, SCORES, _is_estimate):
        name, more = SCORES.get(score, (score.replace("_", " "), None))
        better = "" if more is None else " (more is better)" if more else " (less is better)"
        rows.append([f"{name}{better}", *(_estimate(models[model].get(score)) for model in MODELS)])
    return Table(["score [95% interval]", *MODELS], rows)


# measure of the section `classification` of evaluate.json: name, whether more is better
CLASSIFICATION = {
    "accuracy": ("accuracy", True),
    "macro_f1": ("macro-F1", True),
    "ece": ("expected calibration error", False),
    "teacher_agreement": ("the teacher's label", True),
}


def classification(scores: dict[str, Any]) -> list[Table]:
    """How good the models are as classifiers, by row; nothing of a run without labels."""
    if "classification" not in scores:
        return []
    names = [f"{name} ({'more' if more else 'less'} is better)" for name, more in CLASSIFICATION.values()]
    rows = [
        [model, *(_estimate(scores["classification"][model][measure]) for measure in CLASSIFICATION)]
        for model in MODELS
    ]
    return [Table(["model [95% interval]", *names], rows)]


def several_seeds(scores: dict[str, Any]) -> list[Table]:
    """Mean, standard deviation and interval of every score over the training seeds; nothing of a single seed."""
    rows = [
        [model, SCORES.get(score, (score,))[0], *(number(row[key]) for key in ("mean", "sd", "ci_low", "ci_high"))]
        for model, found in scores.get("seeds", {}).items()
        for score, row in found.items()
        if row["seeds"] > 1
    ]
    return [Table(["model", "score", "mean over seeds", "sd", "low", "high"], rows, "llrrrr")] if rows else []


def statistics(scores: dict[str, Any]) -> list[Table]:
    """What else evaluate.json has: numbers by model, a table for each list of rows, and what is of no one model.

    It takes any keys, beside and in `models`, so that what stage evaluate adds is shown.
    """
    models = scores["models"]
    parts = {name: value for name, value in scores.items() if name not in ("models", "seeds", "classification")}
    keyed = {name: value for name, value in parts.items() if isinstance(value, dict) and value}
    by_model = [name for name, value in keyed.items() if set(value) <= set(MODELS)]
    leaves: dict[str, dict[str, Any]] = {}
    for model in MODELS:
        own = {key: value for key, value in models[model].items() if not _is_estimate(value)}
        own |= {name: keyed[name][model] for name in by_model if model in keyed[name]}
        leaves[model] = {name: leaf for key, value in own.items() for name, leaf in flat(value, key).items()}
    tables = several_seeds(scores)
    if single := _keys(leaves, (), lambda leaf: not isinstance(leaf, list)):
        rows = [[Data(_words(name)), *(_leaf(leaves[model].get(name)) for model in MODELS)] for name in single]
        tables.append(Table(["by model", *MODELS], rows))
    for name in _keys(leaves, (), lambda leaf: isinstance(leaf, list) and bool(leaf) and isinstance(leaf[0], dict)):
        columns = list(next(leaves[model][name] for model in MODELS if leaves[model].get(name))[0])
        rows = [
            [model, *(_leaf(row.get(column)) for column in columns)]
            for model in MODELS
            for row in leaves[model].get(name, [])
        ]
        tables.append(Table([Data(_words(name)), *(Data(_words(column)) for column in columns)], rows))
    others = {key: leaf for name in parts if name not in by_model for key, leaf in flat(parts[name], name).items()}
    if shared := [[Data(_words(name)), _leaf(leaf)] for name, leaf in others.items() if leaf not in ({}, [])]:
        tables.append(Table(["of all", "value"], shared))
    return tables


def _keys(models: dict[str, dict[str, Any]], first: Iterable[str], wanted: Callable[[Any], bool]) -> list[str]:
    """The keys under which some model has what is wanted, each once: `first`, then the others as they come."""
    found = [key for model in MODELS for key, value in models[model].items() if wanted(value)]
    return [key for key in dict.fromkeys([*first, *found]) if key in found]


def _is_estimate(value: Any) -> bool:
    return isinstance(value, dict) and set(ESTIMATE) <= set(value)


def _estimate(score: dict[str, float] | None) -> str:
    if score is None:
        return "-"
    return f"{number(score['value'])} [{number(score['ci_low'])}, {number(score['ci_high'])}]"


def _leaf(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, int | float) and not isinstance(value, bool):
        return number(value)
    return Data(value if isinstance(value, str) else json.dumps(value))


def _words(name: str) -> str:
    return name.replace("_", " ").replace(".", ", ")
