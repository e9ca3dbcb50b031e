"""Fuse several responses to a prompt into one (Mixture-of-Agents, Wang et al. 2024)."""

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import groupby

from distill.core.files import Row
from distill.generation.auxiliary import AuxiliaryCall, call_auxiliary
from distill.generation.requests import QueryContext
from distill.modeling.sampling import Sampling
from distill.modeling.templates import Messages
from distill.params.teachers import Teacher

TASK = (
    "Several models have answered the user's last message; their answers follow. Some of what they say may be wrong or "
    "beside the point. Judge it, and write the one best answer to the user: correct, complete and clear. Write the "
    "answer alone; do not mention the other answers."
)


@dataclass(frozen=True)
class Fusion:
    """The aggregator's call, named by prompt id, and the ids of the rows that each response was fused from."""

    call: AuxiliaryCall
    sources: dict[str, list[str]]


def fuse(rows: Iterable[Row], aggregator: Teacher, sampling: Sampling, context: QueryContext) -> Fusion:
    """Queries the aggregator with the responses to each prompt. Rows must be in order of prompt.

    Failed and empty responses are left out. A prompt with fewer than two other responses is skipped.
    """
    usable = (row for row in rows if row["response"] and not row["error"])
    sources: dict[str, list[str]] = {}
    prompts: dict[str, Messages] = {}
    for prompt_id, group in groupby(usable, key=lambda row: row["prompt_id"]):
        candidates = list(group)
        if len(candidates) > 1:
            sources[prompt_id] = [row["id"] for row in candidates]
            prompts[prompt_id] = fusion_messages(candidates)
    return Fusion(call_auxiliary("aggregator", aggregator, prompts, sampling, context), sources)


def fusion_messages(rows: list[Row]) -> Messages:
    """The aggregator's messages: the responses as system message, before the prompt's system message, then the
    prompt."""
    messages = rows[0]["messages"]
    system_prompt = messages[0]["content"] if messages[0]["role"] == "system" else None
    responses = "\n\n".join(f"[answer {number}]\n{row['response']}" for number, row in enumerate(rows, start=1))
    system = "\n\n".join(filter(None, (TASK, responses, system_prompt)))
    return [{"role": "system", "content": system}, *(messages if system_prompt is None else messages[1:])]
