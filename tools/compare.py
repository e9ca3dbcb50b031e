"""Says whether two revisions differ for real: `python -m tools.compare main my-branch`.

Both revisions' scores of every held-out item are read from git through DVC's API; nothing is checked out.
Each metric's difference has its 95% interval from a paired bootstrap over the items and the training seeds, and a
verdict: better or worse where the interval leaves zero out, else within noise. Of a revision with one training seed
the interval cannot say what another would have changed; where nothing but the training seeds differs, all that
differs is that noise, and the verdict says so. Without a second revision the first is compared with the
working tree.
"""

import argparse
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from distill.cards.document import flat, number
from distill.core.errors import UserError, run_main
from distill.core.files import atomic_file
from distill.evaluation.bootstrap import paired_difference
from distill.evaluation.scores import chance_of, measures
from distill.reporting.score_tables import BETTER, MODELS, NOISE, SCORES, WORSE, verdict
from tools import revision
from tools.revision import Revision

EXACT = {"parameters": False, "bytes": False}  # counted, not estimated: whether more is better
TIMED = "latency_gain"
SHOWN = 6  # differences of the environment in the text
SAME, UNTESTED = "the same", "not tested"
COLOURS = {BETTER: "#00795A", WORSE: "#C44E00", NOISE: "#666666"}


@dataclass(frozen=True)
class Row:
    """A metric of both revisions. The interval is None where there is nothing to resample."""

    metric: str
    values: tuple[float, float]
    difference: float
    ci_low: float | None
    ci_high: float | None
    verdict: str


def other_test(one: Revision, other: Revision) -> str | None:
    """Why the items of two revisions cannot be paired, or None where they are the same test."""
    items = [set(found.items["item"]) for found in (one, other)]
    if items[0] != items[1]:
        counts = f"{len(items[0])} and {len(items[1])}, {len(items[0] & items[1])} in both"
        return f"they were measured on other items ({counts})"
    if one.test != other.test:
        return f"{revision.TEST} differs, and with it the answers to choose from"
    seeds = [found.params["seed"] for found in (one, other)]
    if seeds[0] != seeds[1]:
        return f"another seed ({seeds[0]} and {seeds[1]}) draws other wrong answers to choose from"
    tokens = [by_seed(found, "teacher")[None][["tokens", "bytes"]] for found in (one, other)]
    if not tokens[0].equals(tokens[1]):
        return "the teacher's answers, or its tokens for them, differ"
    return None


def trained_again(one: Revision, other: Revision) -> bool:
    """Whether nothing but the training seeds differs: then every difference is what another training brings."""
    changed = revision.differences(one.params, other.params)
    return bool(changed) and {path.split(".")[0] for path in changed} == {"seeds"} and one.sources == other.sources


def by_seed(found: Revision, model: str) -> dict[int | None, pd.DataFrame]:
    """One model's items for each of its training seeds (None where it has none), in the order of their names."""
    items = found.items[found.items["model"] == model]
    return {
        None if pd.isna(seed) else int(seed): part.set_index("item").sort_index()
        for seed, part in items.groupby("seed", dropna=False)
    }


def scored(one: Revision, other: Revision, model: str, paired: bool) -> list[Row]:
    """The metrics that are ratios over items, with a paired interval each where the items are the same."""
    tables = by_seed(one, model), by_seed(other, model)
    same_seeds = list(tables[0]) == list(tables[1])
    resamples, seed = other.params["evaluate.bootstrap_resamples"], other.params["seed"]
    rows = []
    for name, measure in measures(chance_of(other.params.get("generate.class_labels"))).items():
        before, after = (measure.ratios(list(seeds.values())) for seeds in tables)
        values = measure.value(*before), measure.value(*after)
        if not paired:
            rows.append(Row(name, values, values[1] - values[0], None, None, UNTESTED))
            continue
        change = paired_difference(before, after, resamples, seed, measure.transform, same_seeds)
        word = NOISE if trained_again(one, other) else verdict(change.ci_low, change.ci_high, SCORES[name][1])
        rows.append(Row(name, values, change.value, change.ci_low, change.ci_high, word))
    return rows


def counted(one: Revision, other: Revision, model: str) -> list[Row]:
    """Size, which has no noise, and the latency gain, whose noise no item shows."""
    rows = []
    for name, more_is_better in EXACT.items():
        values = one.table[model][name], other.table[model][name]
        change = values[1] - values[0]
        word = SAME if change == 0 else BETTER if (change > 0) == more_is_better else WORSE
        rows.append(Row(name, values, change, None, None, word))
    if model == "distilled":
        values = one.table["goals"][TIMED], other.table["goals"][TIMED]
        rows.append(Row(TIMED, values, values[1] - values[0], None, None, UNTESTED))
    return rows


def result(one: Revision, other: Revision, model: str) -> dict[str, Any]:
    """All that is printed, as the JSON of `--json`."""
    for found in (one, other):
        if found.items[found.items["model"] == model].empty:
            raise UserError(f"{found.name} has no items of {model} in {revision.ITEMS}.")
    reason = other_test(one, other)
    tables = [by_seed(found, model) for found in (one, other)]
    stages = one.environment.keys() & other.environment.keys()  # a run of another seed has no counterpart
    environments = [{stage: found.environment[stage] for stage in sorted(stages)} for found in (one, other)]
    rows = scored(one, other, model, paired=reason is None) + counted(one, other, model)
    return {
        "revisions": [one.name, other.name],
        "model": model,
        "items": [len(next(iter(seeds.values()))) for seeds in tables],
        "seeds": [[seed for seed in seeds if seed is not None] for seeds in tables],
        "not_paired": reason,
        "only_seeds_differ": trained_again(one, other),
        "params": revision.differences(one.params, other.params),
        "environment": revision.differences(*(flat(found, "") for found in environments)),
        "metrics": {row.metric: {key: part for key, part in asdict(row).items() if key != "metric"} for row in rows},
    }


def text(found: dict[str, Any]) -> str:
    """The result for a terminal."""
    one, other = found["revisions"]
    lines = [f"{one} -> {other}: {found['model']}, {found['items'][1]} items", ""]
    if found["params"]:
        lines += table(
            [["param", one, other], *([path, *map(json.dumps, pair)] for path, pair in found["params"].items())]
        )
    else:
        lines.append("no param differs")
    rows = [["metric", one, other, "difference", "95% interval", "verdict"]]
    for name, row in found["metrics"].items():
        interval = "" if row["ci_low"] is None else f"[{row['ci_low']:+.4g}, {row['ci_high']:+.4g}]"
        rows.append([name, *map(number, row["values"]), f"{row['difference']:+.4g}", interval, row["verdict"]])
    lines += ["", *table(rows)]
    if found["not_paired"]:
        lines += ["", f"not tested: {found['not_paired']}. Only the same test can be paired:"]
        lines += ["compare revisions that share prompts, teachers, seed, clean and evaluate in params.yaml."]
    if found["only_seeds_differ"]:
        lines += ["", "only the training seeds differ: whatever differs is the noise that another training brings"]
    elif any(len(seeds) == 1 for seeds in found["seeds"]):
        more = "docs/evaluation.md#several-training-seeds"
        lines += ["", f"one training seed: the intervals are about items, and another seed may change more ({more})"]
    if found["environment"]:
        shown = [
            f"  {path.strip('.')}: {before!r} -> {after!r}" for path, (before, after) in found["environment"].items()
        ]
        lines += [
            "",
            "warning: made in different environments, which alone may change the last digits and a few answers",
        ]
        lines += shown[:SHOWN] + ([f"  and {len(shown) - SHOWN} more (--json has all)"] if len(shown) > SHOWN else [])
    return "\n".join(lines)


def table(rows: list[list[str]]) -> list[str]:
    """The rows with their columns aligned."""
    widths = [max(len(row[place]) for row in rows) for place in range(len(rows[0]))]
    return ["  ".join(part.ljust(width) for part, width in zip(row, widths, strict=True)).rstrip() for row in rows]


def draw(found: dict[str, Any], path: Path) -> None:
    """The differences with their intervals, a panel each, as they have scales of their own."""
    from matplotlib.figure import Figure  # a second to import, which only --figure needs

    rows = {name: row for name, row in found["metrics"].items() if row["ci_low"] is not None}
    if not rows:
        raise UserError(f"--figure: no difference was tested, so that there is none to draw: {found['not_paired']}.")
    figure = Figure(figsize=(8, 0.8 + 0.62 * len(rows)), layout="constrained")
    panels = figure.subplots(len(rows), 1, squeeze=False)[:, 0]
    for axes, (name, row) in zip(panels, rows.items(), strict=True):
        ends = row["difference"] - row["ci_low"], row["ci_high"] - row["difference"]
        axes.axvline(0, color="#999999", linewidth=1)
        axes.errorbar(
            row["difference"],
            0,
            xerr=[[max(0, end)] for end in ends],
            fmt="o",
            capsize=4,
            color=COLOURS[row["verdict"]],
        )
        reach = 1.1 * max(abs(row["ci_low"]), abs(row["ci_high"]), 1e-9)
        axes.set(xlim=(-reach, reach), yticks=[])
        axes.set_ylabel(SCORES[name][0], rotation=0, ha="right", va="center")
        axes.annotate(row["verdict"], (1.01, 0.5), xycoords="axes fraction", va="center", color=COLOURS[row["verdict"]])
        axes.spines[["left", "right", "top"]].set_visible(False)
        axes.tick_params(labelsize=7)
    figure.suptitle("{1} minus {0}, {2}".format(*found["revisions"], found["model"]), fontsize=11)
    with atomic_file(path) as temporary:
        figure.savefig(temporary, format="png", dpi=120)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition(":")[0])
    parser.add_argument("revisions", nargs="+", metavar="REVISION", help="one or two: branch, tag, commit, experiment")
    parser.add_argument("--model", choices=MODELS, default="distilled")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--figure", type=Path, metavar="FILE", help="draw the differences as a PNG")
    arguments = parser.parse_args()
    if len(arguments.revisions) > 2:
        raise UserError(f"two revisions can be compared, given {len(arguments.revisions)}.")
    one, other = (revision.read(Path.cwd(), name) for name in [*arguments.revisions, None][:2])
    found = result(one, other, arguments.model)
    if arguments.figure:
        draw(found, arguments.figure)
    print(json.dumps(found, indent=2, ensure_ascii=False, allow_nan=False) if arguments.json else text(found))


if __name__ == "__main__":
    run_main(main)
