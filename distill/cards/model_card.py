"""The model card: sources, terms, training and use of a student, with the front matter that model hubs read.

It is the README.md of the student's folder. Evaluation comes later, so its results are filled in on export.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from huggingface_hub import EvalResult, ModelCard, ModelCardData

from distill.cards.document import Data, Section, Table, flatten, key_values
from distill.cards.hub import license_fields
from distill.cards.markdown import between, marks, render
from distill.cards.prompts import prompts_section
from distill.cards.provenance import Provenance
from distill.cards.usage import usage
from distill.core.files import file_hash, write_text

NAME = "README.md"
RESULTS = "table"  # name of the marks that enclose the results
UNMEASURED = "Not in this copy. `python -m tools.export FOLDER` writes one with the results."
ROLES = {
    "init": "the student before training",
    "sft": "the baseline: the student fine-tuned with cross-entropy on the teacher's responses",
    "distilled": "the student trained with the distillation loss",
}
SCORES = {"accuracy": "Accuracy", "perplexity": "Perplexity", "top1_agreement": "Top-1 agreement", "rouge_l": "ROUGE-L"}


def sections(provenance: Provenance, record: Mapping[str, Any]) -> list[Section]:
    """The card's sections; `record` is the run's file in metrics/train."""
    choices = {"seed": provenance.seed} | flatten(dict(provenance.student), "student")
    adapter = []
    if provenance.settings:  # not for init, which is not trained
        if provenance.schedule.get("adapter"):
            adapter = [_adapter_note(provenance.schedule["adapter"])]
        choices |= flatten(dict(provenance.schedule), "train") | flatten(dict(provenance.settings), "distilled")
    unit = "teacher token" if provenance.class_labels is None else "class label"
    outcome = {name: value for name, value in record.items() if name not in ("variant", "seed")}
    sources = [list(map(Data, source)) for source in provenance.sources]
    return [
        Section("Sources", [
            Table(["source", "contribution", "license and terms"], sources, "lll"),
            "The student is derived from these sources: their licenses and terms apply to it too.",
        ]),
        prompts_section(provenance.prompts),
        Section("Training", [
            key_values(["choice", "value"], choices),
            key_values(["result of training", "value"], outcome),
            f"`validation_loss` is in nats per {unit} on held-out topics. `response_tokens` counts every epoch.",
            *adapter,
        ]),
        Section("Files by hash", [key_values(["file", "SHA-256"], provenance.hashes)]),
        Section("Limitations", [
            "The student responds to prompts like those of its training data; it is no general assistant. It has its "
            "teachers' mistakes and makes its own. Nothing checks its responses.",
        ]),
    ]  # fmt: skip


def _adapter_note(adapter: Mapping[str, Any]) -> str:
    """A paragraph on a student that was trained by a low-rank adapter."""
    if adapter["quantization"] is None:
        return "Only a low-rank adapter of the weights was trained (LoRA); it is merged into them."
    return (
        f"Only a low-rank adapter was trained, on top of weights in 4 bits (QLoRA, {adapter['quantization']}). It is "
        "merged into the unquantized weights; `merged_validation_loss` is the loss of the result."
    )


def front_matter(provenance: Provenance) -> ModelCardData:
    """License, library, task and tags for hubs, with the hub name of the model that the weights come from."""
    return ModelCardData(
        base_model=provenance.base if re.fullmatch(r"[\w.-]+/[\w.-]+", provenance.base) else None,
        library_name="transformers",
        pipeline_tag="text-generation",
        tags=["distillation", provenance.variant],
        **license_fields(provenance.license),
    )


def card(provenance: Provenance, record: Mapping[str, Any]) -> str:
    """The card as a file, without results."""
    prompts = (row["messages"] for row in provenance.rows)
    example = min(prompts, key=lambda messages: (len(json.dumps(messages)), json.dumps(messages)))
    begin, end = marks(RESULTS)
    parts = [
        f"---\n{front_matter(provenance).to_yaml()}\n---",
        f"# A distilled model: {provenance.variant}",
        f"This is {ROLES[provenance.variant]}. It has {record['parameters']:,} parameters.",
        f"## Results\n\n{begin}\n{UNMEASURED}\n{end}",
        f"## Use\n\n{usage(example, provenance.class_labels)}",
        *map(render, sections(provenance, record)),
    ]
    return "\n\n".join(parts) + "\n"


def write(folder: Path, provenance: Provenance, record: Mapping[str, Any]) -> None:
    """Writes the card into a student's folder, with the hash of its weights."""
    weights = {path.name: file_hash(path) for path in sorted(folder.glob("*.safetensors"))}
    hashes = weights | dict(provenance.hashes)
    write_text(folder / NAME, card(replace(provenance, hashes=hashes), record))


def with_results(text: str, variant: str, scores: Mapping[str, float], block: str) -> str:
    """The card with its results: `block` for readers, and `scores`, the variant's in metrics.json, for hubs."""
    result = ModelCard(between(text, block, RESULTS, NAME))
    data: Any = result.data
    data.model_name = variant
    data.eval_results = [
        EvalResult(
            task_type="text-generation",
            dataset_type="held-out-topics",
            dataset_name="The teacher's held-out responses",
            metric_type=name,
            metric_name=title,
            metric_value=scores[name],
        )
        for name, title in SCORES.items()
    ]
    return str(result)
