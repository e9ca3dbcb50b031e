"""New prompts written by a teacher from sampled ones (Self-Instruct, Wang et al. 2023)."""

import hashlib
import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from distill.core.errors import UserError
from distill.core.files import value_hash
from distill.core.text import words
from distill.generation.completions import Answer
from distill.generation.prompts import Prompt
from distill.modeling.chat import Messages
from distill.params.generate import SelfInstruct

ITEM = re.compile(r"^\s*(?:\d+\s*[.):]|[-*\u2022])\s*(\S.*)$", re.MULTILINE)
FEWEST_WORDS, MOST_WORDS = 3, 150  # of an instruction, as in the paper
OUTCOMES = ("new", "malformed", "known", "other_topic")
Asker = Callable[[dict[str, Messages]], list[Answer]]  # messages by the name of the request; answers in their order


@dataclass
class Pool:
    """The prompts so far, their words for comparison, and the topics by the words of their names."""

    prompts: dict[str, Prompt]
    texts: list[list[str]] = field(init=False)
    names: dict[tuple[str, ...], str] = field(init=False)

    def __post_init__(self) -> None:
        self.texts = [words(question(prompt)) for prompt in self.prompts.values()]
        self.names = {tuple(words(prompt["topic"])): prompt["topic"] for prompt in self.prompts.values()}

    def add(self, topic: str, text: str) -> None:
        """Takes a new prompt in, under an id that its text gives."""
        messages = [{"role": "user", "content": text}]
        name = f"grown/{value_hash(messages)[:16]}"
        self.prompts[name] = {"id": name, "topic": topic, "messages": messages}
        self.texts.append(words(text))


def grown(prompts: list[Prompt], grow: SelfInstruct, seed: int, ask: Asker) -> tuple[list[Prompt], dict[str, int]]:
    """The prompts with the new ones by id, and how many were written, by outcome.

    Each request shows prompts of one topic, and what comes of it has that topic: a held-out topic's prompts
    beget held-out prompts alone. What is asked depends on the prompts, params and earlier answers, so that a
    run that goes on grows the same. Raises UserError where requests failed, for later ones depend on them.
    """
    pool = Pool({prompt["id"]: prompt for prompt in prompts})
    topics = sorted({prompt["topic"] for prompt in prompts}, key=lambda topic: _order(f"{seed}/{topic}"))
    counts: Counter[str] = Counter()
    for turn in range(grow.num_rounds):
        places = range(turn * grow.requests_per_round, (turn + 1) * grow.requests_per_round)
        asked = [topics[place % len(topics)] for place in places]
        answers = ask(
            {
                str(place): growing_messages(examples(pool, topic, grow.examples_per_request, f"{seed}/{place}"))
                for place, topic in zip(places, asked, strict=True)
            }
        )
        _refuse_failures(answers, turn)
        for topic, answer in zip(asked, answers, strict=True):
            for text in written(answer):
                outcome = outcome_of(text, topic, pool, grow.max_rouge_l)
                counts[outcome] += 1
                if outcome == "new":
                    pool.add(topic, text)
    result = [pool.prompts[name] for name in sorted(pool.prompts)]
    return result, {outcome: counts[outcome] for outcome in OUTCOMES}


def examples(pool: Pool, topic: str, count: int, key: str) -> list[str]:
    """The questions of up to `count` prompts of a topic, drawn by a hash with `key`."""
    own = [prompt for prompt in pool.prompts.values() if prompt["topic"] == topic]
    return [question(prompt) for prompt in sorted(own, key=lambda prompt: _order(f"{key}/{prompt['id']}"))[:count]]


def growing_messages(questions: list[str]) -> Messages:
    """What the teacher is asked: examples as a numbered list, to be continued."""
    count = len(questions)
    listed = "\n".join(f"{number}. {' '.join(text.split())}" for number, text in enumerate(questions, start=1))
    content = (
        f"These are messages that users sent to an assistant:\n\n{listed}\n\nWrite {count} new messages about the same "
        "subject. Each asks for something that none of these asks for, and is understood by itself. Continue the "
        f"numbered list from {count + 1}, one message on a line, and write nothing else."
    )
    return [{"role": "user", "content": content}]


def written(answer: Answer) -> list[str]:
    """The items of the list that a teacher wrote; the last one of a reply that was cut short is left out."""
    items = [found[1].strip().strip('"*').strip() for found in ITEM.finditer(answer.response)]
    return items[:-1] if answer.finish_reason == "length" else items


def outcome_of(text: str, topic: str, pool: Pool, novelty: float) -> str:
    """The outcome of a new text: `new`, or why it is refused.

    `malformed`: too short, too long, or the announcement of something. `other_topic`: it names another topic,
    whose prompts may be held out. `known`: ROUGE-L with a prompt of any topic is at least `novelty`.
    """
    tokens = words(text)
    if not FEWEST_WORDS <= len(tokens) <= MOST_WORDS or not (text[0].isalnum() or text[0] in "\"'") or text[-1] in ":,":
        return "malformed"
    own = f" {' '.join(words(topic))} "
    spoken = f" {' '.join(tokens)} "
    for name in pool.names:
        other = f" {' '.join(name)} "
        if name and other in spoken and other not in own:
            return "other_topic"
    if any(_alike(tokens, known, novelty) for known in pool.texts):
        return "known"
    return "new"


def rouge_l(one: Sequence[str], other: Sequence[str]) -> float:
    """ROUGE-L (Lin 2004) of two word lists: F1 of their longest common subsequence; 0 where one is empty."""
    return 2 * _common(one, other) / (len(one) + len(other)) if one and other else 0.0


def question(prompt: Prompt) -> str:
    """What a prompt asks last."""
    return prompt["messages"][-1]["content"]


def _alike(one: list[str], other: list[str], threshold: float) -> bool:
    """Whether ROUGE-L reaches the threshold; the lengths alone rule most pairs out."""
    bound = 2 * min(len(one), len(other)) / (len(one) + len(other)) if one and other else 0.0
    return bound >= threshold and rouge_l(one, other) >= threshold


def _common(one: Sequence[str], other: Sequence[str]) -> int:
    """Length of the longest common subsequence, a row of the table in one integer (Hyyro 2004)."""
    places: dict[str, int] = {}
    for place, word in enumerate(one):
        places[word] = places.get(word, 0) | 1 << place
    full = (1 << len(one)) - 1
    row = full
    for word in other:
        matches = row & places.get(word, 0)
        row = ((row + matches) | (row - matches)) & full
    return len(one) - row.bit_count()


def _refuse_failures(answers: list[Answer], turn: int) -> None:
    failures = Counter(answer.error["class"] for answer in answers if answer.error)
    if failures:
        listed = ", ".join(f"{name} {count}" for name, count in sorted(failures.items()))
        raise UserError(
            f"generate.self_instruct: {failures.total()} of {len(answers)} requests of round {turn + 1} failed "
            f"({listed}). The next round depends on them: run again. All responses so far are kept."
        )


def _order(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
