"""Selection among several responses to one prompt: best-of-n, majority vote, fusion."""

import hashlib
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import groupby

from distill.core.files import Row
from distill.core.text import normalise, words

REASONS = ("outvoted", "not_best", "fused")
Rejection = tuple[str, str]  # reason, the id of the response that was preferred


@dataclass(frozen=True)
class Candidate:
    """A response as selection sees it."""

    id: str
    prompt_id: str
    key: str  # equal for equal responses
    judge_score: float | None
    fused: bool  # written by the aggregator


def response_key(response: str) -> str:
    """Equal for responses that differ in case, spaces and punctuation alone: `Paris.` and `paris`."""
    return hashlib.sha256((" ".join(words(response)) or normalise(response)).encode()).hexdigest()[:16]


def candidate(row: Row) -> Candidate:
    """The candidate of a row of data/raw/responses.jsonl."""
    score, fused = row.get("judge_score"), bool(row.get("fused_from"))
    return Candidate(row["id"], row["prompt_id"], response_key(row["response"]), score, fused)


def reject(policy: str, candidates: Iterable[Candidate]) -> dict[str, Rejection]:
    """The responses that are not selected, by row id, from candidates in order of prompt.

    The rejections of a prompt depend on its own candidates alone, and at least one of them stays.
    """
    rejections: dict[str, Rejection] = {}
    for _, group in groupby(candidates, key=lambda candidate: candidate.prompt_id):
        rejections |= POLICIES[policy](list(group))
    return rejections


def _all(group: list[Candidate]) -> dict[str, Rejection]:
    """Every response stays: several references a prompt."""
    return {}


def _best_of_n(group: list[Candidate]) -> dict[str, Rejection]:
    """The response with the highest judge score stays, the first of equals. Any score beats none."""
    best = max(group, key=_rank)
    return {candidate.id: ("not_best", best.id) for candidate in group if candidate is not best}


def _majority_vote(group: list[Candidate]) -> dict[str, Rejection]:
    """The most frequent response stays, in all its copies (self-consistency, Wang et al. 2023).

    The higher judge score breaks a tie, then the order.
    """
    votes = Counter(candidate.key for candidate in group)
    winner = max(group, key=lambda candidate: (votes[candidate.key], _rank(candidate)))
    return {candidate.id: ("outvoted", winner.id) for candidate in group if candidate.key != winner.key}


def _fuse(group: list[Candidate]) -> dict[str, Rejection]:
    """The aggregator's response stays. If it is missing or was filtered out, the others stay."""
    fused = next((candidate for candidate in group if candidate.fused), None)
    if fused is None:
        return {}
    return {candidate.id: ("fused", fused.id) for candidate in group if candidate is not fused}


def _rank(candidate: Candidate) -> tuple[bool, float]:
    return (False, 0.0) if candidate.judge_score is None else (True, candidate.judge_score)


POLICIES: dict[str, Callable[[list[Candidate]], dict[str, Rejection]]] = {
    "all": _all,
    "best_of_n": _best_of_n,
    "majority_vote": _majority_vote,
    "fuse": _fuse,
}
