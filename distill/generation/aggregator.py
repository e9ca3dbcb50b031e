"""A teacher as the aggregator of others' answers (Mixture-of-Agents, Wang et al. 2024)."""

from collections.abc import Iterable
from itertools import groupby
from typing import Any

from distill.generation.auxiliary import Help, helped
from distill.generation.query import Setup
from distill.modeling.chat import Messages
from distill.modeling.sampling import Sampling
from distill.params.teachers import Teacher

TASK = (
    "Several models have answered the user's last message; their answers follow. Some of what they say may be wrong or "
    "beside the point. Judge it, and write the one best answer to the user: correct, complete and clear. Write the "
    "answer alone; do not mention the other answers."
)


def fused(
    rows: Iterable[dict[str, Any]], aggregator: Teacher, sampling: Sampling, setup: Setup
) -> tuple[dict[str, list[str]], Help]:
    """The ids of the rows that went into each prompt's fused answer by prompt id, and the aggregator's help.

    Rows come in order of prompt. A failed or empty answer is no candidate; a prompt with one answer left needs
    no aggregator.
    """
    good = (row for row in rows if row["response"] and not row["error"])
    sources: dict[str, list[str]] = {}
    named: dict[str, Messages] = {}
    for prompt_id, group in groupby(good, key=lambda row: row["prompt_id"]):
        candidates = list(group)
        if len(candidates) > 1:
            sources[prompt_id] = [row["id"] for row in candidates]
            named[prompt_id] = fusing_messages(candidates)
    return sources, helped("fuse", aggregator, named, sampling, setup)


def fusing_messages(rows: list[dict[str, Any]]) -> Messages:
    """What the aggregator is asked: the candidates as system message, before the prompt's own, then the prompt."""
    messages = rows[0]["messages"]
    own = messages[0]["content"] if messages[0]["role"] == "system" else None
    listed = "\n\n".join(f"[answer {number}]\n{row['response']}" for number, row in enumerate(rows, start=1))
    system = "\n\n".join(filter(None, (TASK, listed, own)))
    return [{"role": "system", "content": system}, *(messages[1:] if own is not None else messages)]
