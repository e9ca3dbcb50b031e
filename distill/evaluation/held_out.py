"""The held-out rows that models are measured on, and the interface of the tasks that measure them."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import pandas as pd
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from distill.core.files import Row
from distill.evaluation.multiple_choice import subset


@dataclass(frozen=True)
class HeldOut:
    """`rows` are measured, `pool` has all held-out rows; models also generate for the rows in `generation_ids`."""

    rows: list[Row]
    pool: list[Row]
    generation_ids: frozenset[str]

    @property
    def references(self) -> dict[str, str]:
        """The teacher's response of each row by its id."""
        return {row["id"]: row["response"] for row in self.rows}


def sample_held_out(pool: list[Row], max_samples: int, max_generations: int, seed: int) -> HeldOut:
    """The rows to measure, drawn by the seed: the same for all models."""
    rows = subset(pool, max_samples, seed)
    return HeldOut(rows, pool, frozenset(row["id"] for row in subset(rows, max_generations, seed)))


class HeldOutTask(Protocol):
    """What models do on held-out rows: write text, or pick a class label."""

    @property
    def held_out(self) -> HeldOut:
        """The rows that are measured."""

    @property
    def unit(self) -> str:
        """What one item is, in the plural."""

    @property
    def chance(self) -> float:
        """The accuracy of a guess."""

    def prepare(
        self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast
    ) -> tuple[Row, Callable[[], list[Row]]]:
        """What the items depend on besides the model, as a cache key, and the function that measures them."""

    def report(self, items: dict[str, list[pd.DataFrame]], resamples: int, seed: int) -> Row:
        """Sections of metrics/evaluate.json for this task only, from the items of each model and training seed."""


def with_token_match(
    items: Sequence[Row], references: dict[str, str], teacher_tokenizer: PreTrainedTokenizerFast
) -> list[Row]:
    """The items; those with a generated text also have its comparison with the reference in the teacher's tokens."""
    return [
        item | (_token_match(item["generated"], references[item["item"]], teacher_tokenizer))
        if "generated" in item
        else item
        for item in items
    ]


def _token_match(generated: str, reference: str, tokenizer: PreTrainedTokenizerFast) -> dict[str, int]:
    """The tokens that two texts share at the same position, the length of the longer text, and both lengths."""
    ids, reference_ids = (tokenizer(text, add_special_tokens=False).input_ids for text in (generated, reference))
    return {
        "matching_tokens": sum(left == right for left, right in zip(ids, reference_ids, strict=False)),
        "longer_length": max(len(ids), len(reference_ids)),
        "generated_length": len(ids),
        "reference_length": len(reference_ids),
    }
