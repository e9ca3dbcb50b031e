"""Sampling parameters and the seed of a request."""

import hashlib
from dataclasses import dataclass


@dataclass(frozen=True)
class Sampling:
    """Every sampling parameter that a teacher is sent; servers and checkpoints have defaults of their own.

    `seed` is the run's: each request has its own, made from it. With `labels` the answer is the likeliest of these,
    and nothing is sampled.
    """

    max_tokens: int
    temperature: float
    top_p: float
    seed: int
    labels: tuple[str, ...] = ()


def request_seed(seed: int, name: str) -> int:
    """A seed of 31 bits for one request: it depends on nothing but the run's seed and the request's name."""
    return int.from_bytes(hashlib.sha256(f"{seed}/{name}".encode()).digest()[:4], "big") >> 1
