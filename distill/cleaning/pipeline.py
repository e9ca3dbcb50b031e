"""Cleaning from end to end: splits, held-out n-grams, decisions, counts."""

from collections.abc import Iterable, Iterator
from itertools import compress
from typing import Any

import numpy as np

from distill.cleaning.benchmark_texts import file_texts, task_texts
from distill.cleaning.decisions import REASONS, Corpus, Decisions, decide, explain
from distill.cleaning.decontamination import NgramIndex, build_index
from distill.cleaning.filters import LanguageFilter
from distill.cleaning.responses import Responses
from distill.cleaning.splits import SPLITS, assign_splits, split_mask
from distill.core.errors import UserError
from distill.core.files import Row
from distill.params.clean import Clean


def clean_responses(
    rows: Responses, clean: Clean, policy: str, seed: int
) -> tuple[dict[str, Any], dict[str, Iterator[Row]]]:
    """The counts of metrics/clean.json, and the rows of each split and of "dropped".

    Rows keep their order and are read when the iterator reaches them.
    """
    languages = LanguageFilter(clean.languages) if clean.languages else None
    splits = assign_splits(rows, clean, seed)
    corpus = Corpus(rows, splits, contamination_index(rows, splits, clean), clean, policy, languages)
    decisions = decide(corpus)
    positions = range(len(rows))
    outputs: dict[str, Iterator[Row]] = {
        name: map(rows.__getitem__, compress(positions, decisions.kept & split_mask(splits, name))) for name in SPLITS
    }
    outputs["dropped"] = (explain(corpus, decisions, position) for position in compress(positions, ~decisions.kept))
    return summary(corpus, decisions), outputs


def contamination_index(rows: Responses, splits: np.ndarray, clean: Clean) -> NgramIndex:
    """The n-grams of the user turns of the test split, of the evaluation files and of the evaluation tasks.

    A source is the position of a row, or len(rows) + the index of a name in [*evaluation_texts, *evaluation_tasks].
    """
    evaluations = [*map(file_texts, clean.evaluation_texts), *map(task_texts, clean.evaluation_tasks)]
    positions = range(len(rows))

    def held_out() -> Iterator[tuple[int, str]]:
        for position, messages in distinct_prompts(rows, compress(positions, split_mask(splits, "test"))):
            yield from ((position, turn["content"]) for turn in messages if turn["role"] == "user")
        for source, texts in enumerate(evaluations, start=len(rows)):
            yield from ((source, text) for text in texts)

    prompts = distinct_prompts(rows, positions)
    prompt_texts = ((int(rows.topic_ids[position]), turn["content"]) for position, turns in prompts for turn in turns)
    return build_index(held_out(), prompt_texts, clean.decontamination_ngram)


def distinct_prompts(rows: Responses, positions: Iterable[int]) -> Iterator[tuple[int, list[dict[str, str]]]]:
    """Position and messages of the rows at some positions, once for adjacent rows of equal messages."""
    previous = None
    for position in positions:
        messages = rows[position]["messages"]
        if messages != previous:
            yield position, messages
        previous = messages


def summary(corpus: Corpus, decisions: Decisions) -> dict[str, Any]:
    """The counts of metrics/clean.json."""
    masks = {name: decisions.kept & split_mask(corpus.splits, name) for name in SPLITS}
    dropped = {reason: int((decisions.reasons == index).sum()) for index, reason in enumerate(REASONS)}
    counts = {"kept": sum(int(mask.sum()) for mask in masks.values()), "dropped": sum(dropped.values())}
    assert len(corpus.rows) == sum(counts.values()), f"{len(corpus.rows)} rows requested, but {counts}"
    return {
        "requested": len(corpus.rows),
        **counts,
        "reasons": dropped,
        "splits": {
            name: {
                "rows": int(mask.sum()),
                "topics": len(np.unique(corpus.rows.topic_ids[mask])),
                "words": int(decisions.num_words[mask].sum()),
            }
            for name, mask in masks.items()
        },
    }


def require_rows(metrics: dict[str, Any]) -> None:
    """Raise UserError if a split lost all its rows."""
    if empty := [name for name in SPLITS if not metrics["splits"][name]["rows"]]:
        reasons = ", ".join(f"{reason} {count}" for reason, count in metrics["reasons"].items() if count)
        raise UserError(
            f"cleaning left no row in {' and '.join(empty)}; of {metrics['requested']} rows were dropped: {reasons}. "
            "Loosen section clean of params.yaml for the most frequent reason, hold out more topics, add prompts, or "
            "raise generate.max_new_tokens if rows are truncated. Nothing was written."
        )
