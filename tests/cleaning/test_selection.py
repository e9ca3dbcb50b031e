"""Which of several answers to a prompt are kept; the judge's and the aggregator's part in it."""

import pytest
from raw_rows import SPLIT, TOPIC, cleaned, corpus, raw, reasons

from distill.cleaning import selection
from distill.cleaning.selection import Candidate, answer_key, select
from distill.generation.aggregator import TASK as FUSE_TASK
from distill.generation.aggregator import fusion_messages
from distill.generation.judge import parse_rating, rating_messages


def one(row_id: str, answer: str = "", score: float | None = None, fused: bool = False) -> Candidate:
    """A candidate of the prompt before the @ of its id."""
    return Candidate(row_id, row_id.partition("@")[0], answer_key(answer or row_id), score, fused)


def test_all_keeps_every_answer():
    assert select("all", [one("p@a", score=1), one("p@b", score=9), one("q@a")]) == {}


def test_best_keeps_the_highest_score_of_each_prompt():
    rows = [one("p@a", score=3), one("p@b", score=9), one("p@c", score=8.5), one("q@a", score=1)]
    assert select("best_of_n", rows) == {
        "p@a": ("not_best", "p@b"),
        "p@c": ("not_best", "p@b"),
    }


def test_an_answer_without_a_score_loses_to_any_with_one_and_the_first_of_equals_stays():
    assert select("best_of_n", [one("p@a"), one("p@b", score=1)]) == {"p@a": ("not_best", "p@b")}
    assert list(select("best_of_n", [one("p@a"), one("p@b", score=-2)])) == ["p@a"]
    assert list(select("best_of_n", [one("p@a", score=5), one("p@b", score=5)])) == ["p@b"]
    assert list(select("best_of_n", [one("p@a"), one("p@b")])) == ["p@b"]


def test_a_prompt_is_voted_on_by_its_own_answers_alone():
    rows = [one("p@a", "Rome"), one("p@b", "Paris."), one("p@c", " paris"), one("q@a", "Rome"), one("q@b", "Rome!")]
    assert select("majority_vote", rows) == {"p@a": ("outvoted", "p@b")}


def test_between_as_many_votes_the_higher_score_decides_then_the_first():
    rows = [one("p@a", "Rome"), one("p@b", "Paris", score=2)]
    assert list(select("majority_vote", rows)) == ["p@a"]
    assert list(select("majority_vote", [one("p@a", "Rome"), one("p@b", "Paris")])) == ["p@b"]


def test_the_fused_answer_stays_and_the_candidates_where_it_is_missing():
    rows = [one("p@a"), one("p@b"), one("p@m:fused", fused=True), one("q@a"), one("q@b")]
    assert select("fuse", rows) == {"p@a": ("fused", "p@m:fused"), "p@b": ("fused", "p@m:fused")}


@pytest.mark.parametrize("policy", selection.POLICIES)
def test_a_teacher_that_fails_shifts_no_other_prompts_rows(policy):
    rows = [one(f"{prompt}@{name}", "same", score) for prompt in "pqr" for name, score in (("a", 1.0), ("b", 2.0))]
    whole = select(policy, rows)
    without = select(policy, [row for row in rows if row.id != "q@b"])
    others = {"p@a", "p@b", "r@a", "r@b"}
    assert {name: why for name, why in without.items() if name in others} == {
        name: why for name, why in whole.items() if name in others
    }
    assert "q@a" not in without
    kept = {row.prompt_id for row in rows if row.id not in whole}
    assert kept == {"p", "q", "r"}


def test_every_reason_is_listed():
    rows = [one("p@a", "x", 1), one("p@b", "y", 2), one("p@c", "y", 1), one("p@m", "z", 1, fused=True)]
    found = {reason for policy in selection.POLICIES for reason, _ in select(policy, rows).values()}
    assert found == set(selection.REASONS)


def test_answers_are_equal_but_for_case_spaces_and_punctuation():
    assert answer_key(" The  answer: PARIS. ") == answer_key("the answer paris")
    assert answer_key("42") != answer_key("43")
    assert answer_key("!") != answer_key("?")


@pytest.mark.parametrize(
    ("reply", "score"),
    [
        ("Rating: [[7]]", 7.0), ("[[ 10 ]]", 10.0), ("I think so. [[6.5]]", 6.5), ("8", 8.0), ("Rating: 3", 3.0),
        (" 9/10.\n", 9.0), ("[[0]]", None), ("[[11]]", None), ("[[5]] or [[6]]", None), ("", None),
        ("I would give it a 7", None), ("7 or 8", None), ("[7]", None), ("[[seven]]", None), ("-5", None),
    ],
)  # fmt: skip
def test_a_rating_is_read_strictly_or_not_at_all(reply, score):
    assert parse_rating(reply) == score


ROW = {
    "id": "p@a", "prompt_id": "p", "topic": "t", "response": "Because.", "error": None,
    "messages": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Why?"}],
}  # fmt: skip


def test_the_judge_sees_the_conversation_and_the_answer():
    (message,) = rating_messages(ROW)
    assert message["role"] == "user"
    for words in ("Be brief.", "Why?", "Because.", "[[5]]"):
        assert words in message["content"]


def test_the_aggregator_sees_the_candidates_before_the_prompt_as_it_was():
    other = ROW | {"id": "p@b", "response": "Therefore."}
    system, question = fusion_messages([ROW, other])
    assert question == ROW["messages"][1]
    assert system["content"].startswith(FUSE_TASK)
    assert system["content"].index("Because.") < system["content"].index("Therefore.")
    assert system["content"].endswith("Be brief.")
    bare = fusion_messages([row | {"messages": ROW["messages"][1:]} for row in (ROW, other)])
    assert [turn["role"] for turn in bare] == ["system", "user"]


def two(topic: str, one: str, other: str, **changes: object) -> list[dict]:
    """Two teachers' answers to one prompt, the first one's with changes."""
    return [
        raw(topic, one, "both", id="both@a", teacher="a", **changes),
        raw(topic, other, "both", id="both@b", teacher="b", judge_score=5.0),
    ]


@pytest.mark.parametrize("split", ["train", "validation", "test"])
def test_cleaning_selects_in_every_split_and_says_which_answer_was_preferred(split):
    rows = [*corpus(), *two(TOPIC[split], "They live in large families.", "They sing at night.", judge_score=3.0)]
    assert reasons(rows) == {}
    assert reasons(rows, policy="best_of_n") == {"both@a": ("not_best", "both@b")}
    _, parts = cleaned(rows, policy="best_of_n")
    assert [row["matching_text"] for row in parts["dropped"]] == ["They sing at night."]
    assert "both@b" in [row["id"] for row in parts[split]]


def test_an_answer_that_is_bad_by_itself_is_no_candidate():
    rows = [*corpus(), *two(TOPIC["train"], "Too short.", "They sing at night.", judge_score=9.0)]
    assert reasons(rows, policy="best_of_n") == {"both@a": ("too_short", "2 words")}


def test_an_answer_that_was_not_selected_takes_no_other_with_it():
    rows = [
        *corpus(),
        *two(TOPIC["train"], "They live in large families.", "They sing at night.", judge_score=3.0),
        raw(TOPIC["train"], "They live in large families.", "later"),
    ]
    assert reasons(rows) == {rows[-1]["id"]: ("duplicate", "both@a")}
    assert reasons(rows, policy="best_of_n") == {"both@a": ("not_best", "both@b")}


def test_the_fused_answer_is_kept_for_its_candidates():
    fused = raw(TOPIC["train"], "They do both of it.", "both", id="both@m:fused", teacher="m:fused")
    rows = [*corpus(), *two(TOPIC["train"], "They live in large families.", "They sing at night."), fused]
    rows[-1]["fused_from"] = ["both@a", "both@b"]
    assert reasons(rows, policy="fuse") == dict.fromkeys(("both@a", "both@b"), ("fused", "both@m:fused"))
    rows[-1] |= {"response": "", "error": {"class": "timeout", "message": "late"}, "finish_reason": "error"}
    assert reasons(rows, policy="fuse") == {"both@m:fused": ("failed", "timeout: late")}


def test_every_policy_leaves_a_lone_answer_alone():
    rows = corpus()
    assert len(rows) == len(SPLIT)
    for policy in selection.POLICIES:
        assert reasons(rows, policy=policy) == {}
