"""Selection among several responses to one prompt."""

import pytest

from distill.cleaning import selection
from distill.cleaning.selection import Candidate, reject, response_key


def response(row_id: str, text: str = "", score: float | None = None, fused: bool = False) -> Candidate:
    """A candidate of the prompt before the @ of its id."""
    return Candidate(row_id, row_id.partition("@")[0], response_key(text or row_id), score, fused)


def test_policy_all_keeps_every_response():
    assert reject("all", [response("p@a", score=1), response("p@b", score=9), response("q@a")]) == {}


def test_best_keeps_the_highest_score_of_each_prompt():
    rows = [response("p@a", score=3), response("p@b", score=9), response("p@c", score=8.5), response("q@a", score=1)]
    assert reject("best_of_n", rows) == {
        "p@a": ("not_best", "p@b"),
        "p@c": ("not_best", "p@b"),
    }


def test_any_score_beats_none_and_the_first_of_equals_stays():
    assert reject("best_of_n", [response("p@a"), response("p@b", score=1)]) == {"p@a": ("not_best", "p@b")}
    assert list(reject("best_of_n", [response("p@a"), response("p@b", score=-2)])) == ["p@a"]
    assert list(reject("best_of_n", [response("p@a", score=5), response("p@b", score=5)])) == ["p@b"]
    assert list(reject("best_of_n", [response("p@a"), response("p@b")])) == ["p@b"]


def test_a_prompt_is_voted_on_by_its_own_responses_alone():
    rows = [
        response("p@a", "Rome"),
        response("p@b", "Paris."),
        response("p@c", " paris"),
        response("q@a", "Rome"),
        response("q@b", "Rome!"),
    ]
    assert reject("majority_vote", rows) == {"p@a": ("outvoted", "p@b")}


def test_the_score_breaks_a_tie_of_votes_then_the_order():
    rows = [response("p@a", "Rome"), response("p@b", "Paris", score=2)]
    assert list(reject("majority_vote", rows)) == ["p@a"]
    assert list(reject("majority_vote", [response("p@a", "Rome"), response("p@b", "Paris")])) == ["p@b"]


def test_candidates_stay_only_without_a_fused_response():
    rows = [response("p@a"), response("p@b"), response("p@m:fused", fused=True), response("q@a"), response("q@b")]
    assert reject("fuse", rows) == {"p@a": ("fused", "p@m:fused"), "p@b": ("fused", "p@m:fused")}


@pytest.mark.parametrize("policy", selection.POLICIES)
def test_a_failed_response_changes_no_other_prompts_rows(policy):
    rows = [response(f"{prompt}@{name}", "same", score) for prompt in "pqr" for name, score in (("a", 1.0), ("b", 2.0))]
    complete = reject(policy, rows)
    without = reject(policy, [row for row in rows if row.id != "q@b"])
    others = {"p@a", "p@b", "r@a", "r@b"}
    assert {name: why for name, why in without.items() if name in others} == {
        name: why for name, why in complete.items() if name in others
    }
    assert "q@a" not in without
    kept = {row.prompt_id for row in rows if row.id not in complete}
    assert kept == {"p", "q", "r"}


def test_every_reason_is_listed():
    rows = [
        response("p@a", "x", 1),
        response("p@b", "y", 2),
        response("p@c", "y", 1),
        response("p@m", "z", 1, fused=True),
    ]
    reasons = {reason for policy in selection.POLICIES for reason, _ in reject(policy, rows).values()}
    assert reasons == set(selection.REASONS)


def test_response_keys_ignore_case_spaces_and_punctuation():
    assert response_key(" The  answer: PARIS. ") == response_key("the answer paris")
    assert response_key("42") != response_key("43")
    assert response_key("!") != response_key("?")
