"""The tables of stage evaluate: main table, scores, seeds, items and samples."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import pandas as pd

from distill.core.errors import UserError
from distill.core.files import Row
from distill.core.numbers import round_number
from distill.evaluation.benchmarks import split_limited
from distill.evaluation.bootstrap import Estimate
from distill.evaluation.calibration import calibration, response_lengths
from distill.evaluation.goals import GOALS
from distill.evaluation.held_out import HeldOut
from distill.evaluation.measure import Measurements, Model
from distill.evaluation.metrics import estimate_metrics
from distill.evaluation.seeds import mean_benchmarks, mean_values, summarize_seeds
from distill.students.runs import TRAINED

VARIANTS = ("teacher", "init", *TRAINED)
# an apostrophe too, so that different ids stay different; the last four are the full-width forms
FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r", "\n", "'", "\uff1d", "\uff0b", "\uff0d", "\uff20")
Scores = dict[str, dict[str, Estimate]]


@dataclass(frozen=True)
class VariantResults:
    """The results of each variant, in the order of the training seeds: items, benchmark scores, models."""

    items: dict[str, list[pd.DataFrame]]
    benchmarks: dict[str, list[dict[str, Row]]]
    models: dict[str, list[Model]]

    @property
    def first(self) -> dict[str, Model]:
        """The model of each variant's first training seed."""
        return {variant: models[0] for variant, models in self.models.items()}

    @property
    def first_items(self) -> dict[str, pd.DataFrame]:
        """The items of each variant's first training seed."""
        return {variant: items[0] for variant, items in self.items.items()}

    @property
    def sizes(self) -> dict[str, tuple[int, int]]:
        """Parameters and bytes of each variant."""
        return {variant: model.size for variant, model in self.first.items()}

    def scores(self, resamples: int, seed: int, chance: float) -> Scores:
        """Every metric of each variant with its interval."""
        return {variant: estimate_metrics(items, resamples, seed, chance) for variant, items in self.items.items()}


def by_variant(models: Sequence[Model], measurements: Measurements) -> VariantResults:
    """The measurements of all models grouped by variant."""
    groups = {variant: [model for model in models if model.variant == variant] for variant in VARIANTS}
    return VariantResults(
        items={variant: [measurements.items[model.name] for model in group] for variant, group in groups.items()},
        benchmarks={
            variant: [measurements.benchmarks[model.name] for model in group] for variant, group in groups.items()
        },
        models=groups,
    )


def main_table(scores: Scores, sizes: dict[str, tuple[int, int]], gain: float, chance: float) -> dict[str, Row]:
    """metrics/metrics.json: the four models, and the goals of `distilled` against `teacher`.

    Raises UserError where the teacher is no better than chance.
    """
    table: dict[str, Row] = {}
    for name, score in scores.items():
        accuracy = score["accuracy"]
        table[name] = {
            "accuracy": round_number(accuracy.value),
            "accuracy_ci_low": round_number(accuracy.ci_low),
            "accuracy_ci_high": round_number(accuracy.ci_high),
            "accuracy_above_chance": round_number(score["accuracy_above_chance"].value),
            "perplexity": round_number(score["perplexity"].value),
            "top1_agreement": round_number(score["top1_agreement"].value),
            "rouge_l": round_number(score["rouge_l"].value),
            "parameters": sizes[name][0],
            "bytes": sizes[name][1],
        }
    student, teacher = table["distilled"], table["teacher"]
    if teacher["accuracy_above_chance"] <= 0:
        raise UserError(
            f"The teacher's accuracy must be better than chance ({chance:g}) for the task to tell models apart, got "
            f"{teacher['accuracy']:.3f}. Look at data/clean/test.jsonl: are these responses the teacher's?"
        )
    goals: dict[str, Any] = {
        "accuracy_ratio": round_number(student["accuracy"] / teacher["accuracy"]),
        "accuracy_ratio_above_chance": round_number(
            student["accuracy_above_chance"] / teacher["accuracy_above_chance"]
        ),
        "perplexity": student["perplexity"],
        "compression_ratio": round_number(student["parameters"] / teacher["parameters"]),
        "latency_gain": round(gain, 1),
    }
    return table | {"goals": goals | {"met": sum(goal.met(goals[goal.name]) for goal in GOALS)}}


def all_scores(results: VariantResults, scores: Scores, held_out: HeldOut, chance: float) -> Row:
    """metrics/evaluate.json: scores with intervals, over seeds, calibration, lengths, compression, benchmarks."""
    (parameters, num_bytes), (teacher_parameters, teacher_bytes) = (
        results.first[name].size for name in ("distilled", "teacher")
    )
    complete, limited = split_limited({name: mean_benchmarks(seeds) for name, seeds in results.benchmarks.items()})
    items = results.items
    return {
        "items": len(held_out.rows),
        "held_out": len(held_out.pool),
        "generations": len(held_out.generation_ids),
        "models": {name: {key: asdict(value) for key, value in score.items()} for name, score in scores.items()},
        "seeds": {name: summarize_seeds(items[name], scores[name], chance) for name in TRAINED},
        "calibration": {name: mean_values([calibration(table) for table in seeds]) for name, seeds in items.items()},
        "lengths": {name: mean_values([response_lengths(table) for table in seeds]) for name, seeds in items.items()},
        "compression": {"parameters": parameters / teacher_parameters, "bytes": num_bytes / teacher_bytes},
        "benchmarks": complete,
        "limited_benchmarks": limited,
    }


def sample_rows(held_out: HeldOut, tables: dict[str, pd.DataFrame]) -> list[Row]:
    """metrics/samples.jsonl: prompts with the teacher's stored response and each model's generated one."""
    generated = {name: dict(zip(items["item"], items["generated"], strict=True)) for name, items in tables.items()}
    return [
        {
            "id": row["id"],
            "messages": row["messages"],
            "reference": row["response"],
            "generated": {name: texts[row["id"]] for name, texts in generated.items()},
        }
        for row in held_out.rows
        if row["id"] in held_out.generation_ids
    ]


def seeds_table(seeds: dict[str, dict[str, Row]]) -> pd.DataFrame:
    """metrics/seeds.csv: each score of the trained students over the training seeds."""
    return pd.DataFrame(
        [{"model": model, "score": score} | row for model in TRAINED for score, row in seeds[model].items()]
    )


def spreadsheet_text(text: str) -> str:
    """The text as a spreadsheet shows it: after an apostrophe where it would be a formula there."""
    return f"'{text}" if text.startswith(FORMULA_STARTS) else text


def items_table(models: Sequence[Model], items: dict[str, pd.DataFrame]) -> pd.DataFrame:
    """metrics/items.csv: every item of every model and seed, without its text. Ids are no formulas of spreadsheets."""
    tables = [items[model.name].assign(model=model.variant, seed=model.seed) for model in models]
    combined = pd.concat([table.astype({"seed": "Int64"}) for table in tables])
    texts = [name for name in combined.columns if combined[name].map(lambda value: isinstance(value, str)).any()]
    combined[texts] = combined[texts].map(lambda value: spreadsheet_text(value) if isinstance(value, str) else value)
    names = ["model", "seed", "item"]
    return combined[[*names, *(name for name in combined.columns if name not in (*names, "generated"))]]
