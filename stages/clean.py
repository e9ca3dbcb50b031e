"""Drops what no student should learn from and splits by topic: `python -m stages.clean`.

Reads  data/raw/responses.jsonl, params seed, clean
Writes data/clean/{train,validation,test,dropped}.jsonl, metrics/clean.json
"""

import hashlib
import json
import math
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from datasketch import MinHash, MinHashLSH

from distill import params as params_file
from distill.errors import UserError, run
from distill.files import read_rows, write_json, write_rows
from distill.params import Clean
from distill.text import ngrams, normalise, repetition, words

RESPONSES = Path("data/raw/responses.jsonl")
FOLDER = Path("data/clean")
METRICS = Path("metrics/clean.json")
SPLITS = ("test", "validation", "train")  # the order in which rows claim a text: a leak costs training its row
REASONS = (
    "failed",
    "filtered",
    "truncated",
    "empty",
    "refused",
    "too_short",
    "too_long",
    "repetitive",
    "duplicate",
    "near_duplicate",
    "contaminated",
)
SHINGLE = 3  # words
KEYS = {"id": str, "prompt_id": str, "topic": str, "teacher": str, "messages": list, "response": str}

Row = dict[str, Any]
Verdict = tuple[str, str]  # reason and detail


def checked(row: Row, number: int) -> Row:
    """The row if it has every key of a raw row. Raises UserError with its line otherwise."""
    wrong = [key for key, kind in KEYS.items() if not isinstance(row.get(key), kind)]
    wrong += [key for key in ("finish_reason", "logprobs", "usage", "error") if key not in row]
    if wrong:
        raise UserError(
            f"{RESPONSES}, line {number} ({row.get('id')!r}) has no valid {', '.join(wrong)}. "
            "Run `dvc repro generate` to write the file anew from the journal."
        )
    return row


def split_topics(topics: set[str], clean: Clean, seed: int) -> dict[str, str]:
    """The split of every topic (normalised), by a seeded hash order: it depends on the topics and the seed alone.

    Raises UserError where no topic is left for training.
    """
    order = sorted({normalise(topic) for topic in topics}, key=lambda topic: hashlib.sha256(f"{seed}/{topic}".encode()).hexdigest())
    test = math.ceil(clean.test_topics * len(order))
    validation = math.ceil(clean.validation_topics * len(order))
    if test + validation >= len(order):
        raise UserError(
            f"clean: of {len(order)} topics {test} go to test and {validation} to validation, which leaves none to "
            "train on. Lower clean.test_topics and clean.validation_topics, or add topics."
        )
    return {
        topic: "test" if place < test else "validation" if place < test + validation else "train"
        for place, topic in enumerate(order)
    }


def quality(row: Row, clean: Clean) -> Verdict | None:
    """Why the row is bad by itself, or None."""
    text = row["response"]
    if row["error"] is not None or row["finish_reason"] == "error":
        return "failed", (row["error"] or {}).get("class", "")
    if row["finish_reason"] == "content_filter":
        return "filtered", ""
    if row["finish_reason"] == "length" and clean.drop_truncated:
        return "truncated", f"{len(words(text))} words"
    if not text.strip():
        return "empty", ""
    for opening in clean.refusals:
        if normalise(text).startswith(normalise(opening)):
            return "refused", opening
    count = len(words(text))
    if count < clean.min_words:
        return "too_short", f"{count} words"
    if count > clean.max_words:
        return "too_long", f"{count} words"
    if (share := repetition(text)) > clean.max_repetition:
        return "repetitive", f"{share:.2f}"
    return None


def jaccard(one: set[Any], other: set[Any]) -> float:
    """|A n B| / |A u B|, 1 for two empty sets."""
    return len(one & other) / len(one | other) if one | other else 1.0


class Seen:
    """The texts kept so far, found again when exactly or nearly repeated (MinHash LSH, Broder 1997).

    What LSH proposes is checked by the exact Jaccard similarity of word 3-grams, so that the luck of the
    hashes can only miss a pair and never drop a row wrongly.
    """

    def __init__(self, threshold: float, permutations: int) -> None:
        self.threshold, self.permutations = threshold, permutations
        self.exact: dict[str, str] = {}
        self.shingles: dict[str, set[Any]] = {}
        self.index = None if threshold == 1 else MinHashLSH(threshold=threshold, num_perm=permutations)

    def verdict(self, key: str, text: str) -> Verdict | None:
        """Why this text is a repetition, or None, and then it counts as seen under `key`."""
        plain = " ".join(words(text))
        if plain in self.exact:
            return "duplicate", self.exact[plain]
        if self.index is not None:
            shingles = set(ngrams(words(text), SHINGLE))
            sketch = MinHash(num_perm=self.permutations, seed=1)
            sketch.update_batch([" ".join(gram).encode() for gram in sorted(shingles)])
            for other in sorted(self.index.query(sketch)):
                if jaccard(shingles, self.shingles[other]) >= self.threshold:
                    return "near_duplicate", other
            self.index.insert(key, sketch)
            self.shingles[key] = shingles
        self.exact[plain] = key
        return None


def held_out_ngrams(rows: list[Row], splits: dict[str, str], clean: Clean) -> dict[tuple[str, ...], str]:
    """The n-grams that no training row may share, with where each comes from: held-out prompts and texts of files.

    GPT-3 (Brown et al. 2020, appendix C) took 13 words; a shorter text counts as a whole.
    """
    result: dict[tuple[str, ...], str] = {}
    texts = [(row["id"], row["messages"][-1]["content"]) for row in rows if splits[normalise(row["topic"])] == "test"]
    for name in clean.evaluation_texts:
        path = Path(name)
        texts += [(name, text) for row in read_rows(path, "you (params clean.evaluation_texts)") for text in strings(row)]
    for source, text in texts:
        for gram in ngrams(words(text), clean.contamination_ngram):
            result.setdefault(gram, source)
    return result


def strings(value: Any) -> Iterator[str]:
    """All strings inside a JSON value."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list):
        for part in value.values() if isinstance(value, dict) else value:
            yield from strings(part)


def contamination(row: Row, forbidden: dict[tuple[str, ...], str], n: int) -> Verdict | None:
    """The forbidden n-gram that prompt or response of a row contain, or None."""
    for text in (*(turn["content"] for turn in row["messages"]), row["response"]):
        own = words(text)
        for gram in (*ngrams(own, n), tuple(own)):
            if gram in forbidden:
                return "contaminated", f"{forbidden[gram]}: {' '.join(gram)}"
    return None


def cleaned(rows: list[Row], clean: Clean, seed: int) -> dict[str, list[Row]]:
    """The rows of each split and, with `reason` and `detail`, under "dropped"; in the order given."""
    splits = split_topics({row["topic"] for row in rows}, clean, seed)
    forbidden = held_out_ngrams(rows, splits, clean)
    seen = Seen(clean.near_duplicate, clean.minhash_permutations)
    verdicts: dict[str, Verdict | None] = {}
    for split in SPLITS:
        for row in rows:
            if splits[normalise(row["topic"])] != split:
                continue
            verdict = quality(row, clean) or seen.verdict(row["id"], row["response"])
            if verdict is None and split != "test":
                verdict = contamination(row, forbidden, clean.contamination_ngram)
            verdicts[row["id"]] = verdict
    result: dict[str, list[Row]] = {split: [] for split in SPLITS} | {"dropped": []}
    for row in rows:
        verdict = verdicts[row["id"]]
        if verdict is None:
            result[splits[normalise(row["topic"])]].append(row)
        else:
            result["dropped"].append({**row, "reason": verdict[0], "detail": verdict[1]})
    return result


def summary(parts: dict[str, list[Row]]) -> dict[str, Any]:
    """Counts by reason and split; requested = kept + dropped."""
    reasons = Counter(row["reason"] for row in parts["dropped"])
    kept = sum(len(parts[split]) for split in SPLITS)
    return {
        "requested": kept + len(parts["dropped"]),
        "kept": kept,
        "dropped": len(parts["dropped"]),
        "reasons": {reason: reasons[reason] for reason in REASONS},
        "splits": {
            split: {
                "rows": len(parts[split]),
                "topics": len({row["topic"] for row in parts[split]}),
                "words": sum(len(words(row["response"])) for row in parts[split]),
            }
            for split in reversed(SPLITS)
        },
    }


def main() -> None:
    params = params_file.load()
    rows = [checked(row, number) for number, row in enumerate(read_rows(RESPONSES, "stage generate"), start=1)]
    parts = cleaned(rows, params.clean, params.seed)
    metrics = summary(parts)
    for reason, count in metrics["reasons"].items():
        if count:
            print(f"{reason}: {count} dropped")
    print(f"{metrics['kept']} of {metrics['requested']} rows kept")
    empty = [split for split in SPLITS if not parts[split]]
    if empty:
        raise UserError(
            f"clean left no row for {' and '.join(empty)}; dropped were {json.dumps(metrics['reasons'])}. "
            "Loosen the limits in params clean, ask more prompts, or raise generate.max_tokens."
        )
    for name, part in parts.items():
        write_rows(FOLDER / f"{name}.jsonl", part)
    write_json(METRICS, metrics)


if __name__ == "__main__":
    run(main)
