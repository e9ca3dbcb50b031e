"""Drops what no student should learn from and splits by topic: `python -m stages.clean`.

Reads  data/raw/responses.jsonl, the files that clean.evaluation_texts names, params seed, clean
Writes data/clean/{train,validation,test,dropped}.jsonl, metrics/clean.json
"""

import hashlib
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field, ValidationError

from distill import params as params_file
from distill.errors import UserError, run
from distill.files import read_rows, write_json, write_rows
from distill.params import Clean
from distill.text import Kept, forbidden_ngrams, normalise, opens_with, repetition, shared_ngram, words

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
    "duplicate",
    "near_duplicate",
    "contaminated",
)

Row = dict[str, Any]
Verdict = tuple[str, str]  # reason, detail


class Turn(BaseModel):
    """One message."""

    role: str
    content: str


class Usage(BaseModel):
    """Tokens, as the teacher counted them."""

    prompt_tokens: int
    completion_tokens: int


class Failure(BaseModel):
    """Why there is no answer."""

    kind: str = Field(alias="class")
    message: str


Finite = Annotated[float, Field(allow_inf_nan=False)]


class RawRow(BaseModel):
    """A row of data/raw/responses.jsonl; what only some teachers give may be left out."""

    id: str
    prompt_id: str
    topic: str
    teacher: str
    sample: Annotated[int, Field(ge=0)] = 0
    messages: Annotated[list[Turn], Field(min_length=1)]
    response: str
    finish_reason: Literal["stop", "length", "error", "content_filter", "other"]
    logprobs: list[Finite] | None
    entropies: list[Finite] | None = None
    margins: list[Finite] | None = None
    judge_score: Finite | None = None
    fused_from: list[str] = []
    degraded: list[str] = []
    usage: Usage | None
    error: Failure | None


def checked(lines: Iterable[Row]) -> list[Row]:
    """The rows in order of prompt, teacher and sample. Raises UserError for a broken one, a repeated id, for none."""
    rows: dict[str, Row] = {}
    for number, row in enumerate(lines, start=1):
        where = f"{RESPONSES}, line {number} (id {row.get('id')!r})"
        try:
            RawRow.model_validate(row, strict=True)
        except ValidationError as error:
            raise UserError(
                f"{where} is broken: {described(error)}. Run `dvc repro --force --single-item generate` to write the "
                "file anew; no teacher is asked again what it answered."
            ) from None
        if row["id"] in rows:
            raise UserError(f"{where} has the id of an earlier line; each prompt, teacher and sample has one row.")
        rows[row["id"]] = row
    if not rows:
        raise UserError(f"{RESPONSES} has no rows: is the prompts file (params generate.prompts) empty?")
    return sorted(rows.values(), key=lambda row: (row["prompt_id"], row["teacher"], row.get("sample", 0)))


def described(error: ValidationError) -> str:
    """The first mistakes of a row: `messages.0.content: field required; logprobs.3: input should be ...`."""
    mistakes = [(".".join(map(str, one["loc"])), one["msg"]) for one in error.errors(include_url=False)]
    more = f"; and {len(mistakes) - 3} more" if len(mistakes) > 3 else ""
    return "; ".join(f"{path}: {text[0].lower()}{text[1:]}" for path, text in mistakes[:3]) + more


def topic(row: Row) -> str:
    """The row's topic; in another case or with other spaces it is the same."""
    return normalise(row["topic"])


def split_topics(topics: Iterable[str], clean: Clean, seed: int) -> dict[str, str]:
    """The split of each topic, which depends on the topics and the seed alone.

    In the order of SHA-256(seed/topic) the first part is test, the next validation, the rest train; each
    held-out part gets at least one topic. Raises UserError where none is left for training.
    """
    order = sorted(set(topics), key=lambda name: hashlib.sha256(f"{seed}/{name}".encode()).hexdigest())
    test, validation = (max(1, round(share * len(order))) for share in (clean.test_topics, clean.validation_topics))
    if test + validation >= len(order):
        raise UserError(
            f"of {len(order)} topics, {test} for test and {validation} for validation leave none to train on. Ask "
            "prompts of more topics, or lower clean.test_topics and clean.validation_topics in params.yaml."
        )
    names = ["test"] * test + ["validation"] * validation + ["train"] * (len(order) - test - validation)
    return dict(zip(order, names, strict=True))


def quality(row: Row, clean: Clean) -> Verdict | None:
    """Why the response is bad by itself, or None."""
    text, finish = row["response"], row["finish_reason"]
    if row["error"] is not None or finish == "error":
        return "failed", ": ".join((row["error"]["class"], row["error"]["message"])) if row["error"] else ""
    if finish == "content_filter":
        return "filtered", ""
    count = len(words(text))
    if finish == "length" and clean.drop_truncated:
        return "truncated", f"after {count} words"
    if not text.strip():
        return "empty", ""
    for opening in clean.refusals:
        if opens_with(text, opening):
            return "refused", opening
    if count < clean.min_words:
        return "too_short", f"{count} words"
    if count > clean.max_words:
        return "too_long", f"{count} words"
    if (share := repetition(text)) > clean.max_repetition:
        return "repetitive", f"{share:.2f}"
    return None


def strings(value: Any) -> Iterator[str]:
    """All strings inside a JSON value, keys aside."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list):
        for part in value.values() if isinstance(value, dict) else value:
            yield from strings(part)


def held_out_texts(rows: list[Row], splits: dict[str, str], clean: Clean) -> Iterator[tuple[str, str]]:
    """Source and text of what training must not see: what users ask in the test split, and the evaluation files."""
    for row in rows:
        if splits[topic(row)] == "test":
            yield from ((row["prompt_id"], turn["content"]) for turn in row["messages"] if turn["role"] == "user")
    for name in clean.evaluation_texts:
        for value in read_rows(Path(name), "you: clean.evaluation_texts in params.yaml names it"):
            yield from ((name, text) for text in strings(value))


def verdicts(rows: list[Row], splits: dict[str, str], clean: Clean) -> dict[str, Verdict]:
    """Why rows are dropped, by id.

    A row is compared with the kept ones alone. Of rows that repeat each other the test row stays, then the
    validation row, then the first. Contamination costs training and validation their row (13 words in GPT-3,
    Brown et al. 2020), never test.
    """
    asked = ((topic(row), turn["content"]) for row in rows for turn in row["messages"])
    forbidden = forbidden_ngrams(held_out_texts(rows, splits, clean), asked, clean.contamination_ngram)
    kept = Kept(clean.near_duplicate, clean.minhash_permutations)
    result: dict[str, Verdict] = {}
    for row in sorted(rows, key=lambda row: FIRST_CLAIM.index(splits[topic(row)])):
        if verdict := quality(row, clean):
            result[row["id"]] = verdict
            continue
        fingerprint = kept.fingerprint(row["response"])
        texts = [*(turn["content"] for turn in row["messages"]), row["response"]]
        if other := kept.same(fingerprint):
            result[row["id"]] = "duplicate", other
        elif other := kept.similar(fingerprint):
            result[row["id"]] = "near_duplicate", other
        elif splits[topic(row)] != "test" and (gram := shared_ngram(texts, forbidden, clean.contamination_ngram)):
            result[row["id"]] = "contaminated", f"{forbidden[gram]}: {' '.join(gram)}"
        else:
            kept.add(row["id"], fingerprint)
    return result


def cleaned(rows: list[Row], clean: Clean, seed: int) -> dict[str, list[Row]]:
    """The kept rows of each split, and under "dropped" the others with `reason` and `detail`, in the order given."""
    splits = split_topics(map(topic, rows), clean, seed)
    why = verdicts(rows, splits, clean)
    parts: dict[str, list[Row]] = {name: [] for name in (*SPLITS, "dropped")}
    for row in rows:
        if row["id"] in why:
            reason, detail = why[row["id"]]
            parts["dropped"].append({**row, "reason": reason, "detail": detail})
        else:
            parts[splits[topic(row)]].append(row)
    return parts


def summary(requested: int, parts: dict[str, list[Row]]) -> dict[str, Any]:
    """The counts of metrics/clean.json."""
    kept, dropped = sum(len(parts[split]) for split in SPLITS), len(parts["dropped"])
    assert requested == kept + dropped, f"{requested} rows requested, but {kept} kept and {dropped} dropped"
    reasons = Counter(row["reason"] for row in parts["dropped"])
    assert set(reasons) <= set(REASONS), f"unknown reasons: {set(reasons) - set(REASONS)}"
    return {
        "requested": requested,
        "kept": kept,
        "dropped": dropped,
        "reasons": {reason: reasons[reason] for reason in REASONS},
        "splits": {
            split: {
                "rows": len(parts[split]),
                "topics": len({topic(row) for row in parts[split]}),
                "words": sum(len(words(row["response"])) for row in parts[split]),
            }
            for split in SPLITS
        },
    }


def refuse_empty(metrics: dict[str, Any]) -> None:
    """Raises UserError where a split lost all its rows."""
    if empty := [split for split in SPLITS if not metrics["splits"][split]["rows"]]:
        reasons = ", ".join(f"{reason} {count}" for reason, count in metrics["reasons"].items() if count)
        raise UserError(
            f"cleaning left no row in {' and '.join(empty)}; of {metrics['requested']} rows were dropped: {reasons}. "
            "Loosen section clean of params.yaml for the reason that is too common, hold out more topics, ask more "
            "prompts, or raise generate.max_tokens where rows are truncated. Nothing was written."
        )


def main() -> None:
    """Loads the responses, cleans and splits them, writes the parts and their counts."""
    params = params_file.load()
    rows = checked(read_rows(RESPONSES, "stage generate"))
    parts = cleaned(rows, params.clean, params.seed)
    metrics = summary(len(rows), parts)
    for reason, count in metrics["reasons"].items():
        if count:
            print(f"dropped {count:6} {reason}")
    for split, counts in metrics["splits"].items():
        print(f"kept    {counts['rows']:6} {split}: {counts['topics']} topics, {counts['words']} words")
    refuse_empty(metrics)
    for name, part in parts.items():
        write_rows(FOLDER / f"{name}.jsonl", part)
    write_json(METRICS, metrics)


if __name__ == "__main__":
    run(main)
