"""Multiple choice: pick the teacher's response to a prompt among four."""

import random

from distill.core.errors import UserError
from distill.core.files import Row

NUM_CHOICES = 4
NUM_NEAREST = 12  # responses of nearest length that the wrong choices are drawn from
CHANCE = 1 / NUM_CHOICES

Choices = tuple[list[int], int]  # indices into the pool, and the position of the right one among them


def subset(rows: list[Row], count: int, seed: int) -> list[Row]:
    """At most `count` rows, drawn by the seed, in their own order."""
    chosen = set(random.Random(seed).sample(range(len(rows)), min(count, len(rows))))
    return [row for index, row in enumerate(rows) if index in chosen]


def draw_choices(rows: list[Row], pool: list[Row], seed: int) -> list[Choices]:
    """Four choices for each row: its own response and three responses to other prompts, all different in text.

    The seed draws the wrong choices from the NUM_NEAREST responses of nearest length. Otherwise a sum of
    log-probabilities would tell long from short. Raises UserError where the pool is too small.
    """
    lengths = [len(row["response"]) for row in pool]
    indices = {row["id"]: index for index, row in enumerate(pool)}
    result = []
    for row in rows:
        right = indices[row["id"]]
        texts, nearest = {row["response"]}, []
        for index in sorted(range(len(pool)), key=lambda index: (abs(lengths[index] - lengths[right]), index)):
            if pool[index]["prompt_id"] != row["prompt_id"] and pool[index]["response"] not in texts:
                nearest.append(index)
                texts.add(pool[index]["response"])
            if len(nearest) == NUM_NEAREST:
                break
        if len(nearest) < NUM_CHOICES - 1:
            raise UserError(
                f"Each held-out row needs {NUM_CHOICES - 1} different responses to other prompts, but {row['id']!r} "
                f"has {len(nearest)}. Raise clean.test_fraction."
            )
        draw = random.Random(f"{seed}/{row['id']}")
        choices = [right, *draw.sample(nearest, NUM_CHOICES - 1)]
        draw.shuffle(choices)
        result.append((choices, choices.index(right)))
    return result
