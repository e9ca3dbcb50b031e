"""Which of several answers to one prompt are kept: rules over small records, one prompt at a time."""

import hashlib
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import groupby
from typing import Any

from distill.core.text import normalise, words

REASONS = ("outvoted", "not_best", "fused")
Verdict = tuple[str, str]  # reason, the id of the answer that was preferred


@dataclass(frozen=True)
class Candidate:
    """What selection needs of an answer. `answer` is equal for equal answers; `fused`: the aggregator wrote it."""

    id: str
    prompt_id: str
    answer: str
    judge_score: float | None
    fused: bool


def answer_key(response: str) -> str:
    """Equal for answers that differ in case, spaces and punctuation alone: `Paris.` and `paris`."""
    return hashlib.sha256((" ".join(words(response)) or normalise(response)).encode()).hexdigest()[:16]


def candidate(row: dict[str, Any]) -> Candidate:
    """What selection needs of a row of data/raw/responses.jsonl."""
    score, fused = row.get("judge_score"), bool(row.get("fused_from"))
    return Candidate(row["id"], row["prompt_id"], answer_key(row["response"]), score, fused)


def select(policy: str, candidates: Iterable[Candidate]) -> dict[str, Verdict]:
    """Why answers are not kept, by row id, of candidates in order of prompt.

    A prompt's verdicts depend on its own candidates alone, and at least one of them stays.
    """
    result: dict[str, Verdict] = {}
    for _, group in groupby(candidates, key=lambda one: one.prompt_id):
        result |= POLICIES[policy](list(group))
    return result


def _all(group: list[Candidate]) -> dict[str, Verdict]:
    """Every answer stays: several references a prompt."""
    return {}


def _best(group: list[Candidate]) -> dict[str, Verdict]:
    """The answer with the highest judge score stays; the first of equals. One without a score loses to any with one."""
    best = max(group, key=_rank)
    return {one.id: ("not_best", best.id) for one in group if one is not best}


def _vote(group: list[Candidate]) -> dict[str, Verdict]:
    """The answers that most candidates give stay (self-consistency, Wang et al. 2023).

    Between answers with as many votes the higher judge score decides, then the first.
    """
    votes = Counter(one.answer for one in group)
    winner = max(group, key=lambda one: (votes[one.answer], _rank(one)))
    return {one.id: ("outvoted", winner.id) for one in group if one.answer != winner.answer}


def _fuse(group: list[Candidate]) -> dict[str, Verdict]:
    """The aggregator's answer stays; where it is missing or was dropped before, the candidates do."""
    fused = next((one for one in group if one.fused), None)
    return {} if fused is None else {one.id: ("fused", fused.id) for one in group if one is not fused}


def _rank(one: Candidate) -> tuple[bool, float]:
    return (False, 0.0) if one.judge_score is None else (True, one.judge_score)


POLICIES: dict[str, Callable[[list[Candidate]], dict[str, Verdict]]] = {
    "all": _all,
    "best_of_n": _best,
    "majority_vote": _vote,
    "fuse": _fuse,
}
