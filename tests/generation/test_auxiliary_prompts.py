"""The prompts of the judge and of the aggregator."""

import pytest

from distill.generation.aggregator import TASK as FUSE_TASK
from distill.generation.aggregator import fusion_messages
from distill.generation.judge import parse_rating, rating_messages


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


def test_the_aggregator_sees_the_candidates_before_the_prompt():
    other = ROW | {"id": "p@b", "response": "Therefore."}
    system, question = fusion_messages([ROW, other])
    assert question == ROW["messages"][1]
    assert system["content"].startswith(FUSE_TASK)
    assert system["content"].index("Because.") < system["content"].index("Therefore.")
    assert system["content"].endswith("Be brief.")
    bare = fusion_messages([row | {"messages": ROW["messages"][1:]} for row in (ROW, other)])
    assert [turn["role"] for turn in bare] == ["system", "user"]
