"""Compare two revisions and tell differences from noise: `python -m tools.compare main my-branch`.

Both revisions' scores of every held-out item are read from git through DVC's API; nothing is checked out.
Each metric's difference has a 95% interval from a paired bootstrap over items and training seeds. It is better or worse
if the interval excludes zero, else within noise. With a single training seed the interval is blind to what another seed
would change. If only the training seeds differ, every difference is that noise. Without a second revision the first is
compared with the working tree.
"""

import argparse
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from distill.cards.document import flatten
from distill.core.errors import UserError, run_main
from distill.evaluation.bootstrap import paired_difference
from distill.evaluation.metrics import chance_accuracy, metrics
from distill.reporting.score_tables import BETTER, MODELS, NOISE, SCORES, WORSE, significance
from tools import comparison_figure, comparison_text, revision
from tools.revision import Revision

EXACT = {"parameters": False, "bytes": False}  # counted, not estimated: whether more is better
TIMED = "latency_gain"
SAME, UNTESTED = "the same", "not tested"


@dataclass(frozen=True)
class MetricChange:
    """A metric of both revisions. The interval is None if there is nothing to resample."""

    metric: str
    values: tuple[float, float]
    difference: float
    ci_low: float | None
    ci_high: float | None
    verdict: str


def reason_unpaired(first: Revision, second: Revision) -> str | None:
    """Why the items of two revisions cannot be paired, or None if both have the same test."""
    revisions = (first, second)
    items = [set(revision.items["item"]) for revision in revisions]
    if items[0] != items[1]:
        counts = f"{len(items[0])} and {len(items[1])}, {len(items[0] & items[1])} in both"
        return f"they were measured on different items ({counts})"
    if first.test != second.test:
        return f"{revision.TEST} differs, and with it the choices of each item"
    seeds = [revision.params["data_seed"] for revision in revisions]
    if seeds[0] != seeds[1]:
        return f"another data_seed ({seeds[0]} and {seeds[1]}) draws other wrong choices"
    tokens = [items_by_seed(revision, "teacher")[None][["tokens", "bytes"]] for revision in revisions]
    if not tokens[0].equals(tokens[1]):
        return "the teacher's responses, or its tokens for them, differ"
    return None


def only_seeds_differ(first: Revision, second: Revision) -> bool:
    """Whether nothing but the training seeds differs, so that every difference is noise of training."""
    changed = revision.differences(first.params, second.params)
    sections = {path.split(".")[0] for path in changed}
    return sections == {"training_seeds"} and first.sources == second.sources


def items_by_seed(revision: Revision, model: str) -> dict[int | None, pd.DataFrame]:
    """One model's items for each of its training seeds (None if it has none), sorted by item."""
    items = revision.items[revision.items["model"] == model]
    return {
        None if pd.isna(seed) else int(seed): table.set_index("item").sort_index()
        for seed, table in items.groupby("seed", dropna=False)
    }


def score_changes(first: Revision, second: Revision, model: str, paired: bool) -> list[MetricChange]:
    """The metrics that are ratios over items, each with a paired interval if the items are the same."""
    tables = items_by_seed(first, model), items_by_seed(second, model)
    same_seeds = list(tables[0]) == list(tables[1])
    resamples, seed = second.params["evaluate.bootstrap_resamples"], second.params["data_seed"]
    chance = chance_accuracy(second.params.get("generate.class_labels"))
    changes = []
    for name, metric in metrics(chance).items():
        before, after = (metric.ratios(list(seeds.values())) for seeds in tables)
        values = metric.value(*before), metric.value(*after)
        if not paired:
            changes.append(MetricChange(name, values, values[1] - values[0], None, None, UNTESTED))
            continue
        change = paired_difference(before, after, resamples, seed, metric.transform, same_seeds)
        verdict = significance(change.ci_low, change.ci_high, SCORES[name][1])
        if only_seeds_differ(first, second):
            verdict = NOISE
        changes.append(MetricChange(name, values, change.value, change.ci_low, change.ci_high, verdict))
    return changes


def exact_changes(first: Revision, second: Revision, model: str) -> list[MetricChange]:
    """Size, which has no noise, and the latency gain, whose noise no item shows."""
    changes = []
    for name, more_is_better in EXACT.items():
        values = first.table[model][name], second.table[model][name]
        difference = values[1] - values[0]
        verdict = SAME if difference == 0 else BETTER if (difference > 0) == more_is_better else WORSE
        changes.append(MetricChange(name, values, difference, None, None, verdict))
    if model == "distilled":
        values = first.table["goals"][TIMED], second.table["goals"][TIMED]
        changes.append(MetricChange(TIMED, values, values[1] - values[0], None, None, UNTESTED))
    return changes


def compare(first: Revision, second: Revision, model: str) -> dict[str, Any]:
    """Everything that is printed, as the JSON of `--json`."""
    revisions = (first, second)
    for revised in revisions:
        if revised.items[revised.items["model"] == model].empty:
            raise UserError(f"{revised.name} has no items of {model} in {revision.ITEMS}. Run `dvc repro` there.")
    reason = reason_unpaired(first, second)
    tables = [items_by_seed(revised, model) for revised in revisions]
    stages = sorted(first.environment.keys() & second.environment.keys())  # runs of other seeds have no counterpart
    environments = [flatten({stage: revised.environment[stage] for stage in stages}, "") for revised in revisions]
    changes = score_changes(first, second, model, paired=reason is None) + exact_changes(first, second, model)
    return {
        "revisions": [first.name, second.name],
        "model": model,
        "items": [len(next(iter(seeds.values()))) for seeds in tables],
        "seeds": [[seed for seed in seeds if seed is not None] for seeds in tables],
        "not_paired": reason,
        "only_seeds_differ": only_seeds_differ(first, second),
        "params": revision.differences(first.params, second.params),
        "environment": revision.differences(*environments),
        "metrics": {
            change.metric: {key: value for key, value in asdict(change).items() if key != "metric"}
            for change in changes
        },
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition(":")[0])
    parser.add_argument("revisions", nargs="+", metavar="REVISION", help="one or two: branch, tag, commit, experiment")
    parser.add_argument("--model", choices=MODELS, default="distilled")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--figure", type=Path, metavar="FILE", help="draw the differences as a PNG")
    arguments = parser.parse_args()
    if len(arguments.revisions) > 2:
        raise UserError(f"REVISION must be one or two, got {len(arguments.revisions)}.")
    first, second = (revision.read(Path.cwd(), name) for name in [*arguments.revisions, None][:2])
    comparison = compare(first, second, arguments.model)
    if arguments.figure:
        comparison_figure.draw(comparison, arguments.figure)
    print(
        json.dumps(comparison, indent=2, ensure_ascii=False, allow_nan=False)
        if arguments.json
        else comparison_text.text(comparison)
    )


if __name__ == "__main__":
    run_main(main)
