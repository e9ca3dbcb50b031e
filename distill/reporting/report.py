"""The report: one list of sections, rendered as markdown and as an HTML page."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from distill.cards import data_card, model_card
from distill.cards.document import Block, Bullets, Data, Figure, Responses, Section, flatten, format_number, key_values
from distill.cards.markdown import render
from distill.cards.provenance import Provenance
from distill.evaluation.goals import few_items_warning
from distill.reporting import main_table, score_tables
from distill.reporting.inputs import Inputs, Row
from distill.reporting.score_tables import MODELS

TITLE = "Distillation report"
ROLES = {"teacher": "the model to match"} | model_card.ROLES
GOALS_NOTE = (
    "In the figure, intervals of the relative accuracy treat the teacher's accuracy as exact. Whiskers of the speedup "
    "are the quartiles of the model's runs."
)
CLASSES_NOTE = (
    "Each model responds with the most likely of a closed set of class labels. Accuracy, F1 and calibration are "
    "measured against the prompts' gold labels if there are any, else against the teacher's labels. Elsewhere in this "
    "report a class label counts as one token: perplexity is of the teacher's label within the set, and top-1 "
    "agreement is the fraction of labels that equal the teacher's."
)
COMPARISON_NOTE = (
    "The baseline `sft` was trained on the same rows for the same number of steps, with cross-entropy alone. If two "
    "intervals overlap, this table cannot tell the models apart; `metrics/items.csv` has every item of both for a "
    "paired test."
)
REPRODUCE = (
    "`dvc repro` runs the pipeline and repeats only what changed. `dvc.lock` has the hash of every input, parameter "
    "and output; `git checkout REVISION && dvc checkout` restores those of a revision."
)


def markdown(inputs: Inputs) -> str:
    """The report without its appendix."""
    return "\n\n".join([f"# {TITLE}", introduction(inputs), *map(render, sections(inputs))]) + "\n"


def introduction(inputs: Inputs) -> str:
    """Size, source and training of the student, in two sentences."""
    student, teacher = (inputs.metrics[name]["parameters"] for name in ("distilled", "teacher"))
    return (
        f"The student `distilled` has {student / 1e6:.1f} M parameters, {student / teacher:.0%} of its teacher's "
        f"{teacher / 1e6:.1f} M. It comes from `{inputs.record['source']}` and was trained with "
        f"`{inputs.record['loss']}` on {len(inputs.rows):,} responses."
    )


def sections(inputs: Inputs) -> list[Section]:
    """Results, comparisons, training, responses and data, and how to reproduce them."""
    scores = inputs.evaluate
    teachers, cleaning, weights, *extremes = data_card.sections(inputs.rows, inputs.weight, inputs.clean)
    figure = Figure("weights", "Weights and lengths of the training samples")
    return [
        Section("Results", [
            main_table.goals_met(inputs.metrics),
            *few_items_warning(scores["items"]),
            main_table.goals(inputs.metrics),
            main_table.results(inputs.metrics),
            main_table.measured_on(scores),
            main_table.MEASURED,
            Bullets([f"`{name}`: {role}" for name, role in ROLES.items()]),
            Figure("goals", "The four goals for the four models"),
            GOALS_NOTE,
        ]),
        Section("Comparison with fine-tuning", [
            main_table.comparison(scores["models"]),
            COMPARISON_NOTE,
            Figure("size", "Accuracy and top-1 agreement against the number of parameters"),
            Figure("latency", "Latency at batch 1"),
        ]),
        Section("All scores", [
            score_tables.intervals(scores["models"]),
            *(block for table in score_tables.classification(scores) for block in (CLASSES_NOTE, table)),
            *score_tables.statistics(scores),
        ]),
        Section("Training", [Figure("loss", "Held-out loss and training loss by epoch")]),
        *response_sections(inputs.samples),
        Section("Data", [
            data_card.summary(inputs.rows),
            teachers,
            cleaning,
            replace(weights, blocks=[*weights.blocks, figure]),
            *extremes,
        ]),
        Section("Reproduction", [REPRODUCE]),
    ]  # fmt: skip


def response_sections(samples: list[Row]) -> list[Section]:
    """Held-out prompts with the models' responses; no section without samples."""
    if not samples:
        return []
    note = (
        f"The first {len(samples)} held-out prompts; `metrics/samples.jsonl` has more. `reference` is the teacher's "
        "stored response, the others are generated."
    )
    return [Section("Held-out responses side by side", [note, *map(responses, samples)])]


def appendix(
    inputs: Inputs, provenance: Provenance, choices: Mapping[str, Any], files: Mapping[str, str]
) -> list[Section]:
    """The largest regressions, the model card and the inputs of the report, for the page only.

    `choices` are the sections of params.yaml, `files` the SHA-256 of the inputs by path.
    """
    leaves = {path: leaf for name, value in choices.items() for path, leaf in flatten_lists(value, name).items()}
    regressions: list[Block] = [
        f"The {len(inputs.regressions)} held-out responses of the teacher on which the student lost most likelihood.",
        *map(regression, inputs.regressions),
    ]
    return [
        Section("Largest regressions", regressions),
        Section("Model card", [
            "The card of the distilled student of the first training seed. `python -m tools.export FOLDER` writes a "
            "folder to share, with this card and its results.",
            *model_card.sections(provenance, inputs.record),
        ]),
        Section("Provenance", [
            Section("Inputs", [key_values(["file", "SHA-256"], files)]),
            Section("Parameters", [key_values(["parameter", "value"], leaves)]),
        ]),
    ]  # fmt: skip


def responses(sample: Row, note: str = "") -> Responses:
    """The models' responses to a prompt, from a row of samples.jsonl or regressions.jsonl; null is left out."""
    texts = {"reference": Data(sample["reference"])}
    texts |= {name: Data(sample["generated"][name]) for name in MODELS if sample["generated"].get(name) is not None}
    return Responses(Data(sample["messages"][-1]["content"]), texts, note)


def regression(row: Row) -> Responses:
    """A regression with the losses of teacher and student on the reference, in nats per teacher token."""
    losses = [f"{name} {format_number(row[f'{name}_nll'] / row['tokens'])}" for name in ("teacher", "distilled")]
    return responses(row, f"{', '.join(losses)} nats per token, {row['tokens']} tokens")


def flatten_lists(value: Any, path: str) -> dict[str, Any]:
    """The leaves of a section of params.yaml by dotted path, with an index for each mapping of a list."""
    if isinstance(value, list) and any(isinstance(item, dict) for item in value):
        value = {str(index): item for index, item in enumerate(value)}
    return flatten(value, path)
