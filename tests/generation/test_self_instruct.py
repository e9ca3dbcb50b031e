"""Growing prompts: who begets whom, what is refused, and that a run that goes on grows the same."""

import random

import pytest
from rouge_score.rouge_scorer import RougeScorer

from distill.core.errors import UserError
from distill.generation.completions import Answer
from distill.generation.self_instruct import Pool, growing_messages, grown, outcome_of, rouge_l, written
from distill.params.generate import SelfInstruct

GROW = SelfInstruct(
    teacher="t", rounds=2, per_round=3, examples_per_request=2, novelty=0.7, max_tokens=64, sampling_temperature=0.7,
    top_p=1.0,
)  # fmt: skip


def prompt(topic: str, text: str) -> dict:
    return {"id": f"{topic}/{text[:9]}", "topic": topic, "messages": [{"role": "user", "content": text}]}


TOPICS = ("ants", "bees", "cats")
PROMPTS = [prompt(topic, f"{start} {topic}?") for topic in TOPICS for start in ("What are", "Why do we need")]


def answer(text: str, finish: str = "stop") -> Answer:
    return Answer("r", text, finish, None, None, None)


class Writer:
    """A teacher that writes two new prompts on the topic that it is shown, and remembers what it was asked."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, str]] = []

    def __call__(self, named):
        self.asked += [(name, messages[0]["content"]) for name, messages in named.items()]
        result = []
        for name, messages in named.items():
            shown = next(topic for topic in TOPICS if topic in messages[0]["content"])
            result.append(answer(f"3. How do {shown} of kind x{name} live?\n4. Name the y{name} first seen {shown}."))
        return result


def test_new_prompts_have_the_topic_of_the_prompts_that_they_were_written_from():
    teacher = Writer()
    result, counts = grown(PROMPTS, GROW, 1, teacher)
    new = [row for row in result if row["id"].startswith("grown/")]
    assert counts["new"] == len(new) == len(result) - len(PROMPTS) > 0
    for row in new:
        assert row["topic"] in row["messages"][0]["content"]
    for _, content in teacher.asked:
        assert sum(topic in content for topic in TOPICS) == 1


def test_every_topic_is_asked_about_in_turn_and_later_rounds_see_earlier_prompts():
    teacher = Writer()
    grown(PROMPTS, GROW.model_copy(update={"num_rounds": 4, "examples_per_request": 9}), 1, teacher)
    assert [name for name, _ in teacher.asked] == [str(place) for place in range(12)]
    for topic in TOPICS:
        own = [content for _, content in teacher.asked if topic in content]
        assert len(own) == 4
        assert "first seen" in own[1]
        assert "first seen" not in own[0]


def test_growth_is_the_same_each_time_and_another_with_another_seed():
    first, again, other = Writer(), Writer(), Writer()
    many = PROMPTS + [prompt("ants", f"Tell {word} ants.") for word in ("red", "old", "sad", "wet")]
    assert grown(many, GROW, 1, first) == grown(list(reversed(many)), GROW, 1, again)
    assert first.asked == again.asked
    grown(many, GROW, 2, other)
    assert first.asked != other.asked


def test_a_failed_request_stops_growth_because_later_ones_depend_on_it():
    def ask(named):
        error = {"class": "timeout", "message": "late"}
        return [Answer("r", "", "error", None, None, error), *(answer("3. A new one here.") for _ in list(named)[1:])]

    with pytest.raises(UserError, match=r"1 of 3 requests of round 1 failed \(timeout 1\)"):
        grown(PROMPTS, GROW, 1, ask)


@pytest.mark.parametrize(
    ("text", "outcome"),
    [
        ("How do ants find their way home?", "new"),
        ("Why ants?", "malformed"),
        ("Here are more messages about ants:", "malformed"),
        ("- what do ants eat", "malformed"),
        ("word " * 151, "malformed"),
        ("What do ants and bees have in common?", "other_topic"),
        ("What do Bees eat?", "other_topic"),
        ("What are the ants?", "known"),
        ("what are ants", "known"),
    ],
)
def test_what_is_refused_and_why(text, outcome):
    pool = Pool({row["id"]: row for row in PROMPTS})
    assert outcome_of(text, "ants", pool, 0.7) == outcome


def test_a_near_copy_of_a_held_out_prompt_is_known_whatever_the_topic():
    rows = [*PROMPTS, prompt("bucket-7", "Where does the river end in winter?")]
    pool = Pool({row["id"]: row for row in rows})
    assert outcome_of("Where does the river end in summer?", "ants", pool, 0.7) == "known"
    assert outcome_of("Where does the river end in summer?", "ants", pool, 0.9) == "new"


def test_a_topic_whose_name_is_part_of_ones_own_is_no_other():
    rows = [prompt("sun", "What is the sun?"), prompt("sun dials", "Who made sun dials?")]
    pool = Pool({row["id"]: row for row in rows})
    assert outcome_of("How precise were sun dials in Rome?", "sun dials", pool, 0.7) == "new"
    assert outcome_of("How precise were sun dials in Rome?", "sun", pool, 0.7) == "other_topic"


def test_items_are_read_from_a_list_and_the_last_of_a_cut_reply_is_left_out():
    text = 'Sure!\n3. "What do ants eat?"\n4) **Where are ants?**\n- Who keeps ants?\nThat is all'
    items = ["What do ants eat?", "Where are ants?", "Who keeps ants?"]
    assert written(answer(text)) == items
    assert written(answer(text, "length")) == items[:-1]
    assert written(answer("No list.")) == []


def test_the_teacher_is_shown_a_numbered_list_to_continue():
    (message,) = growing_messages(["One?", "Two\nlines?"])
    assert "1. One?\n2. Two lines?\n\n" in message["content"]
    assert "from 3" in message["content"]


def test_rouge_l_is_that_of_rouge_score():
    scorer, draw = RougeScorer(["rougeL"]), random.Random(0)
    for _ in range(200):
        one, other = ([draw.choice("abcd") for _ in range(draw.randint(0, 9))] for _ in range(2))
        expected = scorer.score(" ".join(one), " ".join(other))["rougeL"].fmeasure
        assert rouge_l(one, other) == pytest.approx(expected)
