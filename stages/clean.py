"""Drops what no student should learn from and splits by topic: `python -m stages.clean`.

Reads  data/raw/responses.jsonl, what clean.evaluation_texts and clean.evaluation_tasks name, params data_seed, clean,
       generate.mixture.policy
Writes data/clean/{train,validation,test,dropped}.jsonl, metrics/clean.json
"""

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import compress, groupby
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from distill.cleaning import benchmark_texts, selection
from distill.cleaning.decontamination import Forbidden, forbidden
from distill.cleaning.dedup import Kept, Sketcher
from distill.cleaning.filters import Fault, Languages, is_label, quality
from distill.cleaning.responses import Responses, Row
from distill.core.errors import UserError, run_main
from distill.core.files import write_json, write_rows
from distill.core.text import words
from distill.params.clean import Clean
from distill.params.loading import load_params

RESPONSES = Path("data/raw/responses.jsonl")
FOLDER = Path("data/clean")
METRICS = Path("metrics/clean.json")
SPLITS = ("train", "validation", "test")
FIRST_CLAIM = ("test", "validation", "train")  # of rows that repeat each other, training is the first to lose its own
REASONS = (
    "failed",
    "filtered",
    "truncated",
    "empty",
    "refused",
    "too_short",
    "too_long",
    "repetitive",
    "language",
    *selection.REASONS,
    "duplicate",
    "near_duplicate",
    "contaminated",
)
KEPT = len(REASONS)  # the verdict on a row that is not dropped


@dataclass(frozen=True)
class Verdicts:
    """What becomes of each row, by its place."""

    reason: np.ndarray  # [rows] uint8, a place in REASONS, or KEPT
    match: np.ndarray  # [rows] int32, the row that was preferred or is repeated, the source of contamination
    words: np.ndarray  # [rows] uint32, of the response


def split_topics(topics: Iterable[str], clean: Clean, seed: int) -> dict[str, str]:
    """The split of each topic, which depends on the topics and the seed alone.

    In the order of SHA-256(seed/topic) the first part is test, the next validation, the rest train; each
    held-out part gets at least one topic. Raises UserError where none is left for training.
    """
    order = sorted(set(topics), key=lambda name: hashlib.sha256(f"{seed}/{name}".encode()).hexdigest())
    test, validation = (max(1, round(share * len(order))) for share in (clean.test_fraction, clean.validation_fraction))
    if test + validation >= len(order):
        raise UserError(
            f"of {len(order)} topics, {test} for test and {validation} for validation leave none to train on. Ask "
            "prompts of more topics, or lower clean.test_fraction and clean.validation_fraction in params.yaml."
        )
    names = ["test"] * test + ["validation"] * validation + ["train"] * (len(order) - test - validation)
    return dict(zip(order, names, strict=True))


def claims(rows: Responses, clean: Clean, seed: int) -> np.ndarray:
    """The split of each row as a place in FIRST_CLAIM, [rows]."""
    splits = split_topics(rows.topics, clean, seed)
    return np.array([FIRST_CLAIM.index(splits[topic]) for topic in rows.topics], np.uint8)[rows.topic_of]


def prompts(rows: Responses, places: Iterable[int]) -> Iterator[tuple[int, list[dict[str, str]]]]:
    """Place and messages of the rows at some places in order; samples of one prompt give it once."""
    last = None
    for place in places:
        messages = rows[place]["messages"]
        if messages != last:
            yield place, messages
        last = messages


def held_out(rows: Responses, claim: np.ndarray, clean: Clean) -> Forbidden:
    """What training must not share: what users ask in the test split, the evaluation files and tasks.

    A source is a row's place, or beyond the rows that of a name in [*evaluation_texts, *evaluation_tasks].
    """
    files, tasks = clean.evaluation_texts, clean.evaluation_tasks
    texts = [*map(benchmark_texts.of_file, files), *map(benchmark_texts.of_task, tasks)]

    def sources() -> Iterator[tuple[int, str]]:
        for place, messages in prompts(rows, compress(range(len(rows)), claim == FIRST_CLAIM.index("test"))):
            yield from ((place, turn["content"]) for turn in messages if turn["role"] == "user")
        for number, some in enumerate(texts, start=len(rows)):
            yield from ((number, text) for text in some)

    every = prompts(rows, range(len(rows)))
    asked = ((int(rows.topic_of[place]), turn["content"]) for place, messages in every for turn in messages)
    return forbidden(sources(), asked, clean.decontamination_ngram)


def own_fault(row: Row, clean: Clean, languages: Languages | None) -> Fault | None:
    """Why a row is dropped whatever the others are, or None."""
    if fault := quality(row, clean):
        return fault
    other = languages.other(row["response"]) if languages and not is_label(row) else None
    return ("language", other) if other else None


def all_texts(row: Row) -> list[str]:
    """What must not be contaminated: messages and response."""
    return [*(turn["content"] for turn in row["messages"]), row["response"]]


def compared(row: Row) -> str:
    """The text by which a row repeats another: its response, or what it asks where that is one of a few labels."""
    return "\n".join(turn["content"] for turn in row["messages"]) if is_label(row) else row["response"]


def verdicts(
    rows: Responses, claim: np.ndarray, leaks: Forbidden, clean: Clean, policy: str, languages: Languages | None
) -> Verdicts:
    """What becomes of each row.

    Of the sound answers to a prompt those stay that the policy of the mixture selects. A row is compared with the
    kept ones alone. Of rows that repeat each other the test row stays, then the validation row, then the first.
    Contamination costs training and validation their row, never test. A label says nothing by itself, so that of rows
    with labels those repeat each other that ask the same words by another prompt.
    """
    count = len(rows)
    reason, match = np.full(count, KEPT, np.uint8), np.full(count, -1, np.int32)
    lengths = np.zeros(count, np.uint32)
    order = np.argsort(claim, kind="stable").astype(np.uint32)
    sketcher = Sketcher(clean.minhash_threshold, clean.minhash_num_perm)

    def sound() -> Iterator[tuple[int, Row]]:
        """Rows without a fault of their own by their number in the order of claims, a prompt's together."""
        for number, place in enumerate(tqdm(order, desc="clean", unit="row")):
            row = rows[place]
            lengths[place] = len(words(row["response"]))
            if fault := own_fault(row, clean, languages):
                reason[place] = REASONS.index(fault[0])
            else:
                yield number, row

    def verdict(number: int, row: Row) -> tuple[str, int] | None:
        """The reason to drop a selected row, with its match."""
        text, label = compared(row), is_label(row)
        keys = sketcher.keys(text)
        other = kept.same(text, keys)
        if other is not None and not (label and rows[order[other]]["prompt_id"] == row["prompt_id"]):
            return "duplicate", order[other]
        # the examples before every prompt would make any two of them alike
        if not label and (other := kept.similar(text, keys)) is not None:
            return "near_duplicate", order[other]
        if FIRST_CLAIM[claim[order[number]]] != "test" and (found := leaks.first(all_texts(row))):
            return "contaminated", found[0]
        kept.keep(number, keys)
        return None

    with Kept(clean.minhash_threshold, lambda number: compared(rows[order[number]])) as kept:
        for _, group in groupby(sound(), key=lambda item: item[1]["prompt_id"]):
            answers = {row["id"]: (number, row) for number, row in group}
            passed = selection.select(policy, [selection.candidate(row) for _, row in answers.values()])
            for name, (number, row) in answers.items():
                if name in passed:
                    why, preferred = passed[name]
                    found: tuple[str, int] | None = why, order[answers[preferred][0]]
                else:
                    found = verdict(number, row)
                if found:
                    reason[order[number]], match[order[number]] = REASONS.index(found[0]), found[1]
    return Verdicts(reason, match, lengths)


def explained(
    rows: Responses, place: int, found: Verdicts, leaks: Forbidden, clean: Clean, languages: Languages | None
) -> Row:
    """A dropped row with `reason`, `detail`, `matching_text`: the response preferred to it or repeated by it, the
    n-gram that it shares, or null."""
    row, reason, match = rows[place], REASONS[found.reason[place]], int(found.match[place])
    text: str | None = None
    if reason == "contaminated":
        names = [*clean.evaluation_texts, *clean.evaluation_tasks]
        _, text = leaks.first(all_texts(row)) or (0, "")
        source = rows[match]["prompt_id"] if match < len(rows) else names[match - len(rows)]
        detail = f"{source}: {text}"
    elif match >= 0:
        detail, text = rows[match]["id"], compared(rows[match]) if reason == "duplicate" else rows[match]["response"]
    else:
        _, detail = own_fault(row, clean, languages) or ("", "")
    return {**row, "reason": reason, "detail": detail, "matching_text": text}


def summary(rows: Responses, claim: np.ndarray, found: Verdicts) -> dict[str, Any]:
    """The counts of metrics/clean.json."""
    kept = found.reason == KEPT
    members = {split: kept & (claim == FIRST_CLAIM.index(split)) for split in SPLITS}
    dropped = {reason: int((found.reason == place).sum()) for place, reason in enumerate(REASONS)}
    counts = {"kept": sum(int(mask.sum()) for mask in members.values()), "dropped": sum(dropped.values())}
    assert len(rows) == sum(counts.values()), f"{len(rows)} rows requested, but {counts}"
    return {
        "requested": len(rows),
        **counts,
        "reasons": dropped,
        "splits": {
            split: {
                "rows": int(mask.sum()),
                "topics": len(np.unique(rows.topic_of[mask])),
                "words": int(found.words[mask].sum()),
            }
            for split, mask in members.items()
        },
    }


def refuse_empty(metrics: dict[str, Any]) -> None:
    """Raises UserError where a split lost all its rows."""
    if empty := [split for split in SPLITS if not metrics["splits"][split]["rows"]]:
        reasons = ", ".join(f"{reason} {count}" for reason, count in metrics["reasons"].items() if count)
        raise UserError(
            f"cleaning left no row in {' and '.join(empty)}; of {metrics['requested']} rows were dropped: {reasons}. "
            "Loosen section clean of params.yaml for the reason that is too common, hold out more topics, ask more "
            "prompts, or raise generate.max_new_tokens where rows are truncated. Nothing was written."
        )


def cleaned(rows: Responses, clean: Clean, policy: str, seed: int) -> tuple[dict[str, Any], dict[str, Iterator[Row]]]:
    """The counts, and the rows of each split and under "dropped" the others, each in order and read when asked for."""
    languages = Languages(clean.languages) if clean.languages else None
    claim = claims(rows, clean, seed)
    leaks = held_out(rows, claim, clean)
    found = verdicts(rows, claim, leaks, clean, policy, languages)
    kept = found.reason == KEPT
    parts: dict[str, Iterator[Row]] = {
        split: map(rows.__getitem__, compress(range(len(rows)), kept & (claim == FIRST_CLAIM.index(split))))
        for split in SPLITS
    }
    parts["dropped"] = (
        explained(rows, place, found, leaks, clean, languages) for place in compress(range(len(rows)), ~kept)
    )
    return summary(rows, claim, found), parts


def main() -> None:
    """Reads the responses, cleans and splits them, writes the parts and their counts."""
    params = load_params()
    with Responses(RESPONSES) as rows:
        metrics, parts = cleaned(rows, params.clean, params.generate.mixture.policy, params.data_seed)
        for reason, count in metrics["reasons"].items():
            if count:
                print(f"dropped {count:6} {reason}")
        for split, counts in metrics["splits"].items():
            print(f"kept    {counts['rows']:6} {split}: {counts['topics']} topics, {counts['words']} words")
        refuse_empty(metrics)
        written = {name: write_rows(FOLDER / f"{name}.jsonl", part) for name, part in parts.items()}
    assert sum(written.values()) == metrics["requested"], f"{metrics['requested']} rows, but written {written}"
    write_json(METRICS, metrics)


if __name__ == "__main__":
    run_main(main)
