"""Weight every training row: `python -m stages.weight`.

Reads  data/clean/{train,dropped}.jsonl, data/targets, metrics/clean.json, params data_seed, teachers, targets, weight,
       clean.languages, generate.prompts
Writes data/weighted/train.jsonl, data/README.md, metrics/weight.json
"""

import os
from pathlib import Path

from distill.cards import data_card
from distill.core.errors import UserError, run_main
from distill.core.files import Row, read_json, read_rows, write_json, write_rows, write_text
from distill.params.loading import load_params
from distill.params.schema import Params
from distill.targets.statistics import read_statistics
from distill.weighting.confidence import ConfidenceInputs
from distill.weighting.weights import assign_weights, confidence_inputs, summarize

TRAIN = Path("data/clean/train.jsonl")
DROPPED = Path("data/clean/dropped.jsonl")
CLEANING = Path("metrics/clean.json")
TARGETS = Path("data/targets")
WEIGHTED = Path("data/weighted/train.jsonl")
CARD = Path("data/README.md")
METRICS = Path("metrics/weight.json")


def read_inputs(rows: list[Row], params: Params) -> list[ConfidenceInputs]:
    """What is known of each row; nothing is read where the weights are uniform."""
    if params.weight.kind == "uniform":
        return []
    targets = params.targets
    statistics = {} if targets is None else read_statistics(TARGETS, [row["id"] for row in rows])
    teacher = None if targets is None else targets.teacher
    return confidence_inputs(rows, read_rows(DROPPED, "stage clean"), statistics, teacher)


def main() -> None:
    params = load_params()
    rows = list(read_rows(TRAIN, "stage clean"))
    if not rows:
        raise UserError(f"{TRAIN} has no rows: metrics/clean.json says why they were dropped.")
    weighted, strength = assign_weights(rows, read_inputs(rows, params), params.weight, params.data_seed)
    teachers = {teacher.name: (teacher.model, teacher.license) for teacher in params.teachers}
    metrics = summarize(weighted, params.weight, strength) | data_card.numbers(weighted, teachers)
    write_rows(WEIGHTED, weighted)
    cleaning = read_json(CLEANING, "stage clean")
    prompts = params.generate.prompts.model_dump(exclude_none=True)
    write_text(CARD, data_card.card(weighted, metrics, cleaning, params.clean.languages, prompts))
    write_json(METRICS, metrics)
    print(f"{len(rows)} rows weighted, effective sample size {metrics['ess_fraction']:.0%} of them")


if __name__ == "__main__":
    run_main(main, os.environ)
