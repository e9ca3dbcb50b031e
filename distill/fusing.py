"""A teacher as the aggregator of others' answers (Mixture-of-Agents, Wang et al. 2024)."""

from itertools import groupby
from typing import Any

from distill.answers import Answer, Sampling
from distill.asking import Setup, ask, request
from distill.chat import Messages
from distill.params import Teacher

TASK = (
    "Several models have answered the user's last message; their answers follow. Some of what they say may be wrong or "
    "beside the point. Judge it, and write the one best answer to the user: correct, complete and clear. Write the "
    "answer alone; do not mention the other answers."
)


def fused(
    rows: list[dict[str, Any]], aggregator: Teacher, sampling: Sampling, setup: Setup
) -> list[tuple[list[dict[str, Any]], Answer]]:
    """For each prompt with two answers or more, of rows in order of prompt: these rows, and what is made of them.

    A failed or empty answer is no candidate; a prompt with one answer left needs no aggregator.
    """
    good = [row for row in rows if row["response"] and not row["error"]]
    groups = [list(group) for _, group in groupby(good, key=lambda row: row["prompt_id"])]
    groups = [group for group in groups if len(group) > 1]
    requests = [
        request(aggregator, sampling, setup, f"fuse/{group[0]['prompt_id']}", fusing_messages(group))
        for group in groups
    ]
    answers = ask(aggregator, requests, sampling, setup) if requests else {}
    return [(group, answers[item.id]) for group, item in zip(groups, requests, strict=True)]


def fusing_messages(rows: list[dict[str, Any]]) -> Messages:
    """What the aggregator is asked: the candidates as system message, before the prompt's own, then the prompt."""
    messages = rows[0]["messages"]
    own = messages[0]["content"] if messages[0]["role"] == "system" else None
    listed = "\n\n".join(f"[answer {number}]\n{row['response']}" for number, row in enumerate(rows, start=1))
    system = "\n\n".join(filter(None, (TASK, listed, own)))
    return [{"role": "system", "content": system}, *(messages[1:] if own is not None else messages)]
