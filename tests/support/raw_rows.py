"""Rows and params for the tests of cleaning."""

import json
import tempfile
from pathlib import Path

from distill.cleaning.pipeline import clean_responses
from distill.cleaning.responses import Responses
from distill.cleaning.splits import split_topics
from distill.params.clean import Clean

SECTION = {
    "validation_fraction": 0.25,
    "test_fraction": 0.25,
    "drop_truncated": True,
    "min_words": 3,
    "max_words": 40,
    "max_repetition": 0.5,
    "minhash_threshold": 0.8,
    "minhash_num_perm": 128,
    "decontamination_ngram": 13,
    "refusal_prefixes": ["I'm sorry, but", "As an AI"],
    "languages": None,
    "evaluation_texts": [],
    "evaluation_tasks": [],
}
BAD_ROWS = [  # the reason to drop a row, and its changes
    ("failed", {"error": {"class": "Timeout", "message": "60 s"}}),
    ("failed", {"finish_reason": "error", "response": ""}),
    ("filtered", {"finish_reason": "content_filter", "response": ""}),
    ("truncated", {"finish_reason": "length", "response": ""}),
    ("empty", {"response": " \n"}),
    ("refused", {"response": "As an AI"}),
    ("too_short", {"response": "Yes, indeed!"}),
    ("too_long", {"response": "so " * 41}),
    ("repetitive", {"response": "1. " * 20}),
]
CLEAN = Clean.model_validate(SECTION)
SEED = 3
SPLIT = split_topics(["ants", "bees", "cats", "dogs"], CLEAN, SEED)
TOPIC = {split: topic for topic, split in SPLIT.items()}
LETTERS = ["alpha", "beta", "gamma", *(f"letter{number}" for number in range(3, 16))]


def clean_params(**changes):
    return Clean.model_validate({**SECTION, **changes})


def raw_row(topic, response, form="fact", **changes):
    """A row of data/raw/responses.jsonl."""
    row = {
        "id": f"{topic}/{form}@t",
        "prompt_id": f"{topic}/{form}",
        "topic": topic,
        "teacher": "t",
        "messages": [{"role": "user", "content": f"Say a {form} about {topic}."}],
        "response": response,
        "finish_reason": "stop",
        "logprobs": [-0.5, -0.25],
        "usage": {"prompt_tokens": 9, "completion_tokens": 2},
        "error": None,
    }
    return {**row, **changes}


def prompted(text):
    """The changes that give a row this prompt."""
    return {"messages": [{"role": "user", "content": text}]}


def read_responses(rows):
    """The rows as the stage reads them from a file."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "responses.jsonl"
        file.write_text("".join(json.dumps(row) + "\n" for row in rows))
        return Responses(file)


def clean_rows(rows, clean=CLEAN, seed=SEED, policy="all"):
    """The counts of metrics/clean.json, and the rows of each split and of "dropped"."""
    with read_responses(rows) as responses:
        metrics, outputs = clean_responses(responses, clean, policy, seed)
        return metrics, {name: list(output) for name, output in outputs.items()}


def drop_reasons(rows, clean=CLEAN, policy="all"):
    """Reason and detail of each dropped row, by id."""
    return {row["id"]: (row["reason"], row["detail"]) for row in clean_rows(rows, clean, policy=policy)[1]["dropped"]}


def good_rows():
    """One good row for each topic, all different, so that no split is empty."""
    return [raw_row(topic, f"Most {topic} like to {word} early.") for topic, word in zip(SPLIT, LETTERS, strict=False)]
