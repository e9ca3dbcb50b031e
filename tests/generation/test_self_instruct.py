"""Self-instruct: topics of new prompts, outcomes of written texts, and runs that repeat."""

import time

import pytest

from distill.core.errors import UserError
from distill.generation.completions import Completion
from distill.generation.self_instruct import PromptPool, classify, instruction, parse_items, self_instruct
from distill.params.generate import SelfInstruct

PARAMS = SelfInstruct(
    teacher="t", num_rounds=2, requests_per_round=3, examples_per_request=2, max_rouge_l=0.7, max_new_tokens=64,
    sampling_temperature=0.7, top_p=1.0,
)  # fmt: skip
TOPICS = ("ants", "bees", "cats")


def prompt(topic: str, text: str) -> dict:
    return {"id": f"{topic}/{text[:9]}", "topic": topic, "messages": [{"role": "user", "content": text}]}


PROMPTS = [prompt(topic, f"{start} {topic}?") for topic in TOPICS for start in ("What are", "Why do we need")]


def pool(prompts: list[dict]) -> PromptPool:
    return PromptPool({row["id"]: row for row in prompts})


def completion(text: str, finish: str = "stop") -> Completion:
    return Completion("r", text, finish, None, None, None)


class Writer:
    """A teacher that writes two new prompts on the topic of its examples, and records its requests."""

    def __init__(self) -> None:
        self.requests: list[tuple[str, str]] = []

    def __call__(self, requests):
        self.requests += [(name, messages[0]["content"]) for name, messages in requests.items()]
        result = []
        for name, messages in requests.items():
            topic = next(topic for topic in TOPICS if topic in messages[0]["content"])
            text = f"3. How do {topic} of kind x{name} live?\n4. Name the y{name} first seen {topic}."
            result.append(completion(text))
        return result


def test_new_prompts_have_the_topic_of_their_examples():
    teacher = Writer()
    result, counts = self_instruct(PROMPTS, PARAMS, 1, teacher)
    new = [row for row in result if row["id"].startswith("grown/")]
    assert counts["new"] == len(new) == len(result) - len(PROMPTS) > 0
    for row in new:
        assert row["topic"] in row["messages"][0]["content"]
    for _, content in teacher.requests:
        assert sum(topic in content for topic in TOPICS) == 1


def test_topics_take_turns_and_later_rounds_see_new_prompts():
    teacher = Writer()
    self_instruct(PROMPTS, PARAMS.model_copy(update={"num_rounds": 4, "examples_per_request": 9}), 1, teacher)
    assert [name for name, _ in teacher.requests] == [str(number) for number in range(12)]
    for topic in TOPICS:
        of_topic = [content for _, content in teacher.requests if topic in content]
        assert len(of_topic) == 4
        assert "first seen" in of_topic[1]
        assert "first seen" not in of_topic[0]


def test_new_prompts_depend_on_the_seed_alone():
    first, again, other = Writer(), Writer(), Writer()
    many = PROMPTS + [prompt("ants", f"Tell {word} ants.") for word in ("red", "old", "sad", "wet")]
    assert self_instruct(many, PARAMS, 1, first) == self_instruct(list(reversed(many)), PARAMS, 1, again)
    assert first.requests == again.requests
    self_instruct(many, PARAMS, 2, other)
    assert first.requests != other.requests


def test_a_failed_request_stops_self_instruct():
    def query_teacher(requests):
        error = {"class": "timeout", "message": "late"}
        failed = Completion("r", "", "error", None, None, error)
        return [failed, *(completion("3. A new one here.") for _ in list(requests)[1:])]

    with pytest.raises(UserError, match=r"1 of 3 requests of round 1 failed \(timeout 1\)"):
        self_instruct(PROMPTS, PARAMS, 1, query_teacher)


@pytest.mark.parametrize(
    ("text", "outcome"),
    [
        ("How do ants find their way home?", "new"),
        ("\u00bfC\u00f3mo vuelven las hormigas a su casa?", "new"),
        ("\u00abFourmi\u00bb vient de quel mot latin ?", "new"),
        ("\u201eAmeise\u201c kommt aus welcher Sprache?", "new"),
        ("\u300c\u8681\u300d\u306e\u5bb6\u306f\u3069\u3053\uff1f", "new"),
        (
            "\u091a\u0940\u0902\u091f\u0940 \u0915\u0939\u093e\u0901 \u0930\u0939\u0924\u0940 \u0939\u0948?",
            "new",
        ),
        ("\u8fd9\u4e9b\u662f\u65b0\u7684\u95ee\u9898\uff1a", "malformed"),
        ("[Write a question about ants here]", "malformed"),
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
def test_written_texts_have_one_of_four_outcomes(text, outcome):
    assert classify(text, "ants", pool(PROMPTS), 0.7) == outcome


def test_a_near_copy_is_known_whatever_its_topic():
    prompts = pool([*PROMPTS, prompt("bucket-7", "Where does the river end in winter?")])
    assert classify("Where does the river end in summer?", "ants", prompts, 0.7) == "known"
    assert classify("Where does the river end in summer?", "ants", prompts, 0.9) == "new"


def test_a_topic_within_the_name_of_ones_topic_is_allowed():
    prompts = pool([prompt("sun", "What is the sun?"), prompt("sun dials", "Who made sun dials?")])
    assert classify("How precise were sun dials in Rome?", "sun dials", prompts, 0.7) == "new"
    assert classify("How precise were sun dials in Rome?", "sun", prompts, 0.7) == "other_topic"


def test_a_truncated_list_loses_its_last_item():
    text = 'Sure!\n3. "What do ants eat?"\n4) **Where are ants?**\n- Who keeps ants?\nThat is all'
    items = ["What do ants eat?", "Where are ants?", "Who keeps ants?"]
    assert parse_items(completion(text)) == items
    assert parse_items(completion(text, "length")) == items[:-1]
    assert parse_items(completion("No list.")) == []


def test_a_list_of_another_script_is_read():
    text = "3\u3001\u8681\u5403\u4ec0\u4e48\uff1f\r\n\u0664. \u0623\u064a\u0646 \u0627\u0644\u0646\u0645\u0644\u061f"
    assert parse_items(completion(text)) == [
        "\u8681\u5403\u4ec0\u4e48\uff1f", "\u0623\u064a\u0646 \u0627\u0644\u0646\u0645\u0644\u061f",
    ]  # fmt: skip


@pytest.mark.parametrize("unit", ["\n", "\r", " ", "1", "-\n", "1 \n", "\n ", "- ", "1.", "1\n"])
def test_a_megabyte_of_anything_is_read_at_once(unit):
    start = time.perf_counter()
    parse_items(completion(unit * (1_000_000 // len(unit))))
    assert time.perf_counter() - start < 5


def test_the_teacher_gets_a_numbered_list_to_continue():
    (message,) = instruction(["One?", "Two\nlines?"])
    assert "1. One?\n2. Two lines?\n\n" in message["content"]
    assert "from 3" in message["content"]
