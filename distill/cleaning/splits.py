"""Splits by topic: train, validation and test."""

import hashlib
from collections.abc import Iterable

import numpy as np

from distill.cleaning.responses import Responses
from distill.core.errors import UserError
from distill.params.clean import Clean

SPLITS = ("train", "validation", "test")
SPLIT_PRIORITY = (
    "test",
    "validation",
    "train",
)  # of rows that repeat each other, the first of these splits keeps its row


def split_topics(topics: Iterable[str], clean: Clean, seed: int) -> dict[str, str]:
    """The split of each topic. It depends on the topics and the seed alone.

    Topics are ordered by SHA-256(seed/topic): first test, then validation, then train. Each held-out split gets at
    least one topic. Raises UserError if no topic is left for training.
    """
    order = sorted(set(topics), key=lambda topic: hashlib.sha256(f"{seed}/{topic}".encode()).hexdigest())
    fractions = clean.test_fraction, clean.validation_fraction
    num_test, num_validation = (max(1, round(fraction * len(order))) for fraction in fractions)
    num_train = len(order) - num_test - num_validation
    if num_train < 1:
        raise UserError(
            f"of {len(order)} topics, {num_test} for test and {num_validation} for validation leave none to train on. "
            "Add prompts of more topics, or lower clean.test_fraction and clean.validation_fraction in params.yaml."
        )
    names = ["test"] * num_test + ["validation"] * num_validation + ["train"] * num_train
    return dict(zip(order, names, strict=True))


def assign_splits(rows: Responses, clean: Clean, seed: int) -> np.ndarray:
    """The split of each row as an index in SPLIT_PRIORITY, [rows] uint8."""
    splits = split_topics(rows.topics, clean, seed)
    return np.array([SPLIT_PRIORITY.index(splits[topic]) for topic in rows.topics], np.uint8)[rows.topic_ids]


def split_mask(splits: np.ndarray, name: str) -> np.ndarray:
    """Whether each row belongs to the split of this name, [rows] bool."""
    return splits == SPLIT_PRIORITY.index(name)
