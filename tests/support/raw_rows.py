"""Rows and params that the tests of cleaning share."""

import json
import tempfile
from pathlib import Path

from distill.cleaning.responses import Responses
from distill.params.clean import Clean
from stages import clean as stage

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
CLEAN = Clean.model_validate(SECTION)
SEED = 3
SPLIT = stage.split_topics(["ants", "bees", "cats", "dogs"], CLEAN, SEED)
TOPIC = {name: topic for topic, name in SPLIT.items()}
LETTERS = ["alpha", "beta", "gamma", *(f"letter{number}" for number in range(3, 16))]


def with_params(**changes):
    return Clean.model_validate({**SECTION, **changes})


def raw(topic, response, form="fact", **changes):
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


def asked(text):
    return {"messages": [{"role": "user", "content": text}]}


def taken(rows):
    """The rows as the stage reads them from a file."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "responses.jsonl"
        file.write_text("".join(json.dumps(row) + "\n" for row in rows))
        return Responses(file)


def cleaned(rows, clean=CLEAN, seed=SEED, policy="all"):
    """The counts of metrics/clean.json, and the rows of each split and under "dropped" the others."""
    with taken(rows) as responses:
        metrics, parts = stage.cleaned(responses, clean, policy, seed)
        return metrics, {name: list(part) for name, part in parts.items()}


def reasons(rows, clean=CLEAN, policy="all"):
    """Reason and detail of what is dropped, by id."""
    return {row["id"]: (row["reason"], row["detail"]) for row in cleaned(rows, clean, policy=policy)[1]["dropped"]}


def corpus():
    """One good, unlike row for each topic, so that no split is empty."""
    return [raw(topic, f"Most {topic} like to {word} early.") for topic, word in zip(SPLIT, LETTERS, strict=False)]
