"""The rows of the table: what the students of each method measured, as means over the seeds with their intervals."""

import pandas as pd

from distill.core.errors import UserError
from distill.evaluation.bootstrap import Estimate, paired_difference
from distill.evaluation.multiple_choice import CHANCE
from distill.evaluation.scores import estimates, measures
from distill.params.schema import Params
from distill.reporting import methods_table
from tools.methods.plan import Row

PERPLEXITY = measures(CHANCE)["perplexity"]
LEAST_SHARE = 0.9  # of all held-out answers that must be common to all methods


def lines(found: dict[str, list[Row]], params: Params, controls: list[str]) -> list[Row]:
    """A row for each method: every score with its interval over items and seeds, held-out KL, bytes, tokens, minutes.

    For each control there is the paired difference of perplexity, None where the control is not among them.
    """
    result: list[Row] = []
    tables = on_the_same({name: [pd.DataFrame(one["items"]) for one in seeds] for name, seeds in found.items()})
    resamples, seed = params.evaluate.bootstrap_resamples, params.seed
    for name, seeds in found.items():
        own = tables[name]
        row: Row = {"method": name, "seeds": len(seeds), "items": len(own[0])}
        for score, value in estimates(own, resamples, seed, CHANCE).items():
            row |= with_ends(score, value)
        for control in controls:
            difference = None
            if control in tables:
                theirs, ours = (PERPLEXITY.ratios(items) for items in (tables[control], own))
                difference = paired_difference(theirs, ours, resamples, seed, PERPLEXITY.transform)
            row |= with_ends(f"{methods_table.AGAINST}{control}", difference)
        row |= {name: seeds[0][name] for name in ("bytes_a_token", "response_tokens")}
        divergences = [one["held_out_kl"] for one in seeds]
        row |= {"held_out_kl": None if None in divergences else sum(divergences) / len(seeds)}
        row |= {"minutes": sum(one["minutes"] for one in seeds) / len(seeds)}
        result.append(row)
    return result


def on_the_same(tables: dict[str, list[pd.DataFrame]]) -> dict[str, list[pd.DataFrame]]:
    """The items that all students of all methods were measured on, in one order.

    A second teacher's answers may make `clean` drop a held-out one that repeats them. Raises UserError where a method
    lacks more than LEAST_SHARE allows.
    """
    asked = {name: set.intersection(*(set(one["item"]) for one in seeds)) for name, seeds in tables.items()}
    common, whole = set.intersection(*asked.values()), set.union(*asked.values())
    short = [name for name, items in asked.items() if len(items) < LEAST_SHARE * len(whole)]
    if short or len(common) < LEAST_SHARE * len(whole):
        names = ", ".join(short) or "the methods"
        raise UserError(
            f"{names}: measured on other held-out answers than the others ({len(common)} of {len(whole)} are common to "
            "all), so not to be compared."
        )
    return {
        name: [one[one["item"].isin(common)].sort_values("item", ignore_index=True) for one in seeds]
        for name, seeds in tables.items()
    }


def with_ends(name: str, estimate: Estimate | None) -> Row:
    """The columns of an estimate and its interval, empty for None."""
    names = [name, *(f"{name}_{end}" for end in methods_table.ENDS)]
    values = [None] * 3 if estimate is None else [estimate.value, estimate.ci_low, estimate.ci_high]
    return dict(zip(names, values, strict=True))
