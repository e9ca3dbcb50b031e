"""The multiple choice: which held-out rows are asked, and the four answers that each is asked with."""

import random
from typing import Any

from distill.core.errors import UserError

CHOICES = 4
NEAREST = 12  # rows of like length that the wrong answers are drawn from
CHANCE = 1 / CHOICES
Row = dict[str, Any]


def subset(rows: list[Row], count: int, seed: int) -> list[Row]:
    """At most `count` rows, drawn by the seed, in their own order."""
    chosen = set(random.Random(seed).sample(range(len(rows)), min(count, len(rows))))
    return [row for place, row in enumerate(rows) if place in chosen]


def choices(rows: list[Row], pool: list[Row], seed: int) -> list[tuple[list[int], int]]:
    """For each row the indices into `pool` of four answers, and the place of its own among them.

    The wrong ones are answers to other prompts, all different in text, drawn by the seed from the NEAREST ones
    in length: a sum of log-probabilities would otherwise tell long from short. Raises UserError where the pool
    is too small.
    """
    lengths = [len(row["response"]) for row in pool]
    places = {row["id"]: place for place, row in enumerate(pool)}
    result = []
    for row in rows:
        own = places[row["id"]]
        texts, near = {row["response"]}, []
        for place in sorted(range(len(pool)), key=lambda place: (abs(lengths[place] - lengths[own]), place)):
            if pool[place]["prompt_id"] != row["prompt_id"] and pool[place]["response"] not in texts:
                near.append(place)
                texts.add(pool[place]["response"])
            if len(near) == NEAREST:
                break
        if len(near) < CHOICES - 1:
            raise UserError("the held-out rows have too few answers to choose from; raise clean.test_fraction.")
        draw = random.Random(f"{seed}/{row['id']}")
        picked = [own, *draw.sample(near, CHOICES - 1)]
        draw.shuffle(picked)
        result.append((picked, picked.index(own)))
    return result
