"""The rows of the table: means of each method's students over the seeds, with intervals."""

import pandas as pd

from distill.core.errors import UserError
from distill.core.files import Row
from distill.evaluation.bootstrap import Estimate, paired_difference
from distill.evaluation.metrics import estimate_metrics, metrics
from distill.evaluation.multiple_choice import CHANCE
from distill.params.schema import Params
from distill.reporting import methods_table

PERPLEXITY = metrics(CHANCE)["perplexity"]
MIN_COMMON_FRACTION = 0.9  # of all held-out responses, that all methods must have in common


def summarize(students: dict[str, list[Row]], params: Params, controls: list[str]) -> list[Row]:
    """A row for each method: every score with its interval over items and seeds, held-out KL, bytes, tokens, minutes.

    For each control there is the paired difference of perplexity, None if the control is not among the methods.
    """
    rows: list[Row] = []
    tables = common_items({name: [pd.DataFrame(run["items"]) for run in runs] for name, runs in students.items()})
    resamples, seed = params.evaluate.bootstrap_resamples, params.data_seed
    for name, runs in students.items():
        items = tables[name]
        row: Row = {"method": name, "seeds": len(runs), "items": len(items[0])}
        for score, value in estimate_metrics(items, resamples, seed, CHANCE).items():
            row |= interval_columns(score, value)
        for control in controls:
            difference = None
            if control in tables:
                before, after = (PERPLEXITY.ratios(table) for table in (tables[control], items))
                difference = paired_difference(before, after, resamples, seed, PERPLEXITY.transform)
            row |= interval_columns(f"{methods_table.DIFFERENCE}{control}", difference)
        row |= {column: runs[0][column] for column in ("bytes_a_token", "response_tokens")}
        divergences = [run["held_out_kl"] for run in runs]
        row |= {"held_out_kl": None if None in divergences else sum(divergences) / len(runs)}
        row |= {"minutes": sum(run["minutes"] for run in runs) / len(runs)}
        rows.append(row)
    return rows


def common_items(tables: dict[str, list[pd.DataFrame]]) -> dict[str, list[pd.DataFrame]]:
    """The items that all students of all methods were measured on, in the same order.

    Responses of a second teacher may make `clean` drop a held-out one that repeats them. Raises UserError if a method
    lacks more items than MIN_COMMON_FRACTION allows.
    """
    items = {name: set.intersection(*(set(table["item"]) for table in seeds)) for name, seeds in tables.items()}
    common, union = set.intersection(*items.values()), set.union(*items.values())
    short = [name for name, names in items.items() if len(names) < MIN_COMMON_FRACTION * len(union)]
    if short or len(common) < MIN_COMMON_FRACTION * len(union):
        names = ", ".join(short) or "the methods"
        raise UserError(
            f"{names}: measured on other held-out responses than the others ({len(common)} of {len(union)} are common "
            "to all). Compare methods with the same test set."
        )
    return {
        name: [table[table["item"].isin(common)].sort_values("item", ignore_index=True) for table in seeds]
        for name, seeds in tables.items()
    }


def interval_columns(name: str, estimate: Estimate | None) -> Row:
    """The columns of an estimate and its interval, empty for None."""
    columns = [name, *(f"{name}_{end}" for end in methods_table.ENDS)]
    values = [None] * 3 if estimate is None else [estimate.value, estimate.ci_low, estimate.ci_high]
    return dict(zip(columns, values, strict=True))
