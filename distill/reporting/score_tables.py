"""Tables of every score, interval and statistic in metrics/evaluate.json."""

import json
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from distill.cards.document import Data, Table, flatten, format_number

BETTER, WORSE, NOISE = "better", "worse", "within noise"
MODELS = ("teacher", "init", "sft", "distilled")
# score of evaluate.json: title, whether more is better
SCORES = {
    "accuracy": ("accuracy", True),
    "accuracy_norm": ("accuracy, normalized by length", True),
    "accuracy_above_chance": ("accuracy above chance", True),
    "perplexity": ("perplexity", False),
    "bits_per_byte": ("bits per byte", False),
    "top1_agreement": ("top-1 agreement", True),
    "rouge_l": ("ROUGE-L", True),
    "token_match": ("token match", True),
}
# score of the section `classification` of evaluate.json: title, whether more is better
CLASSIFICATION = {
    "accuracy": ("accuracy", True),
    "macro_f1": ("macro-F1", True),
    "ece": ("expected calibration error", False),
    "teacher_agreement": ("same label as the teacher", True),
}
MORE, LESS = "\u2191", "\u2193"  # is better
ESTIMATE = ("ci_low", "ci_high", "value")
Scores = Mapping[str, Any]


def significance(ci_low: float, ci_high: float, more_is_better: bool) -> str:
    """Better or worse if the interval of a difference excludes zero, else within noise."""
    if ci_low <= 0 <= ci_high:
        return NOISE
    return BETTER if (ci_low > 0) == more_is_better else WORSE


def intervals(models: Scores) -> Table:
    """Every score with its 95% interval, a column for each model. SCORES come first."""
    rows = []
    for score in _keys(models, SCORES, _is_estimate):
        title, more_is_better = SCORES.get(score, (score.replace("_", " "), None))
        label = title if more_is_better is None else _with_direction(title, more_is_better)
        rows.append([label, *(_estimate(models[model].get(score)) for model in MODELS)])
    return Table([f"score [95% interval], {MORE} more is better", *MODELS], rows)


def classification(scores: Scores) -> list[Table]:
    """Scores of the models as classifiers, a row for each; no table without class labels."""
    if "classification" not in scores:
        return []
    titles = [_with_direction(*score) for score in CLASSIFICATION.values()]
    rows = [
        [model, *(_estimate(scores["classification"][model][score]) for score in CLASSIFICATION)] for model in MODELS
    ]
    return [Table(["model [95% interval]", *titles], rows)]


def seed_table(scores: Scores) -> list[Table]:
    """Mean, standard deviation and interval of every score over the training seeds; no table for a single seed."""
    rows = [
        [
            model,
            SCORES.get(score, (score,))[0],
            *(format_number(estimate[key]) for key in ("mean", "sd", "ci_low", "ci_high")),
        ]
        for model, estimates in scores.get("seeds", {}).items()
        for score, estimate in estimates.items()
        if estimate["seeds"] > 1
    ]
    return [Table(["model", "score", "mean over seeds", "sd", "ci low", "ci high"], rows, "llrrrr")] if rows else []


def statistics(scores: Scores) -> list[Table]:
    """Everything else in evaluate.json: numbers by model, a table for each list of rows, and shared values.

    Any key is accepted, also below `models`, so that a new statistic of stage evaluate is shown.
    """
    entries = {name: value for name, value in scores.items() if name not in ("models", "seeds", "classification")}
    by_model = {
        name: value
        for name, value in entries.items()
        if isinstance(value, dict) and value and set(value) <= set(MODELS)
    }
    leaves: dict[str, dict[str, Any]] = {}
    for model in MODELS:
        values = {key: value for key, value in scores["models"][model].items() if not _is_estimate(value)}
        values |= {name: by_model[name][model] for name in by_model if model in by_model[name]}
        leaves[model] = {name: leaf for key, value in values.items() for name, leaf in flatten(value, key).items()}
    tables = seed_table(scores)
    if numbers := _keys(leaves, (), lambda leaf: not isinstance(leaf, list)):
        rows = [[Data(_title(name)), *(_leaf(leaves[model].get(name)) for model in MODELS)] for name in numbers]
        tables.append(Table(["by model", *MODELS], rows))
    tables += [_list_table(name, leaves) for name in _keys(leaves, (), _is_list_of_rows)]
    shared = {
        key: leaf
        for name, value in entries.items()
        if name not in by_model
        for key, leaf in flatten(value, name).items()
        if leaf not in ({}, [])
    }
    if shared:
        tables.append(
            Table(["all models", "value"], [[Data(_title(key)), _leaf(leaf)] for key, leaf in shared.items()])
        )
    return tables


def _list_table(name: str, leaves: Mapping[str, Mapping[str, Any]]) -> Table:
    """The rows of a list that models have under this name."""
    columns = list(next(leaves[model][name] for model in MODELS if leaves[model].get(name))[0])
    rows = [
        [model, *(_leaf(row.get(column)) for column in columns)]
        for model in MODELS
        for row in leaves[model].get(name, [])
    ]
    return Table([Data(_title(name)), *(Data(_title(column)) for column in columns)], rows)


def _keys(models: Scores, first: Iterable[str], accept: Callable[[Any], bool]) -> list[str]:
    """The keys under which some model has an accepted value, each once: `first`, then the others in their order."""
    keys = [key for model in MODELS for key, value in models[model].items() if accept(value)]
    return [key for key in dict.fromkeys([*first, *keys]) if key in keys]


def _is_estimate(value: Any) -> bool:
    return isinstance(value, dict) and set(ESTIMATE) <= set(value)


def _is_list_of_rows(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and isinstance(value[0], dict)


def _estimate(score: Mapping[str, float] | None) -> str:
    if score is None:
        return "-"
    low, high = (format_number(score[key]) for key in ("ci_low", "ci_high"))
    return f"{format_number(score['value'])} [{low}, {high}]"


def _leaf(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, int | float) and not isinstance(value, bool):
        return format_number(value)
    return Data(value if isinstance(value, str) else json.dumps(value))


def _with_direction(title: str, more_is_better: bool) -> str:
    return f"{title} {MORE if more_is_better else LESS}"


def _title(name: str) -> str:
    return name.replace("_", " ").replace(".", ", ")
