"""New prompts that a teacher writes from sampled ones (Self-Instruct, Wang et al. 2023)."""

import hashlib
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

import regex

from distill.core.errors import UserError
from distill.core.files import value_hash
from distill.core.text import lcs_f1, words
from distill.generation.completions import Completion
from distill.generation.prompts import Prompt
from distill.modeling.templates import Messages
from distill.params.generate import SelfInstruct

# one match begins at each line at most, so that the time is linear; the last three signs are those of Chinese lists
ITEM = regex.compile(r"^[^\S\n]*(?:\d+\s*[.):\u3001\uff0e\uff09]|[-*\u2022])\s*(\S.*)$", regex.MULTILINE)
# letters, digits, quotation marks and guillemets, inverted question and exclamation marks, brackets of a Chinese title
OPENING = regex.compile(r"[\p{L}\p{M}\p{N}\p{Pi}\p{Pf}\p{Quotation_Mark}\u00bf\u00a1\u2e18\u300a\u3008]")
INTRODUCTION_ENDS = ":,\uff1a\uff0c\u3001\u060c"  # colons and commas of all scripts
MIN_WORDS, MAX_WORDS = 3, 150  # of an instruction, as in the paper
OUTCOMES = ("new", "malformed", "known", "other_topic")
ID_PREFIX = "grown/"  # of a new prompt; journals on disk have requests with these ids
QueryTeacher = Callable[[dict[str, Messages]], list[Completion]]  # messages by request name; completions in their order


@dataclass
class PromptPool:
    """The prompts so far, the words of each, and the topics by the words of their names."""

    prompts: dict[str, Prompt]
    prompt_words: list[list[str]] = field(init=False)
    topics: dict[tuple[str, ...], str] = field(init=False)

    def __post_init__(self) -> None:
        self.prompt_words = [words(last_message(prompt)) for prompt in self.prompts.values()]
        self.topics = {tuple(words(prompt["topic"])): prompt["topic"] for prompt in self.prompts.values()}

    def add(self, topic: str, text: str) -> None:
        """Adds a new prompt under a hash of its text."""
        messages = [{"role": "user", "content": text}]
        name = f"{ID_PREFIX}{value_hash(messages)[:16]}"
        self.prompts[name] = {"id": name, "topic": topic, "messages": messages}
        self.prompt_words.append(words(text))


def self_instruct(
    prompts: list[Prompt], params: SelfInstruct, seed: int, query_teacher: QueryTeacher
) -> tuple[list[Prompt], dict[str, int]]:
    """All prompts by id, including the new ones, and the number of written texts by outcome.

    Each request shows prompts of one topic, and the new prompts have that topic. So prompts of a held-out topic lead
    to held-out prompts alone. Requests depend on prompts, params and earlier completions only: a resumed run gives
    the same prompts. Raises UserError if requests failed, since later ones depend on them.
    """
    pool = PromptPool({prompt["id"]: prompt for prompt in prompts})
    topics = sorted({prompt["topic"] for prompt in prompts}, key=lambda topic: _hash(f"{seed}/{topic}"))
    counts: Counter[str] = Counter()
    for round_number in range(params.num_rounds):
        first = round_number * params.requests_per_round
        request_topics = {
            number: topics[number % len(topics)] for number in range(first, first + params.requests_per_round)
        }
        completions = query_teacher(
            {
                str(number): instruction(sample_examples(pool, topic, params.examples_per_request, f"{seed}/{number}"))
                for number, topic in request_topics.items()
            }
        )
        _refuse_failures(completions, round_number)
        for topic, completion in zip(request_topics.values(), completions, strict=True):
            for text in parse_items(completion):
                outcome = classify(text, topic, pool, params.max_rouge_l)
                counts[outcome] += 1
                if outcome == "new":
                    pool.add(topic, text)
    result = [pool.prompts[name] for name in sorted(pool.prompts)]
    return result, {outcome: counts[outcome] for outcome in OUTCOMES}


def sample_examples(pool: PromptPool, topic: str, count: int, key: str) -> list[str]:
    """The last messages of up to `count` prompts of a topic, sampled by a hash with `key`."""
    candidates = [prompt for prompt in pool.prompts.values() if prompt["topic"] == topic]
    order = sorted(candidates, key=lambda prompt: _hash(f"{key}/{prompt['id']}"))
    return [last_message(prompt) for prompt in order[:count]]


def instruction(examples: list[str]) -> Messages:
    """The messages to the teacher: examples as a numbered list to continue."""
    count = len(examples)
    listed = "\n".join(f"{number}. {' '.join(text.split())}" for number, text in enumerate(examples, start=1))
    content = (
        f"These are messages that users sent to an assistant:\n\n{listed}\n\nWrite {count} new messages about the same "
        "subject. Each asks for something that none of these asks for, and is understood by itself. Continue the "
        f"numbered list from {count + 1}, one message on a line, and write nothing else."
    )
    return [{"role": "user", "content": content}]


def parse_items(completion: Completion) -> list[str]:
    """The items of the list that a teacher wrote, without the last one of a truncated reply."""
    items = [match[1].strip().strip('"*').strip() for match in ITEM.finditer(completion.response)]
    return items[:-1] if completion.finish_reason == "length" else items


def classify(text: str, topic: str, pool: PromptPool, max_rouge_l: float) -> str:
    """The outcome of a written text: `new`, or the reason to drop it.

    `malformed`: too short, too long, or an introduction of something. `other_topic`: it names another topic, whose
    prompts may be held out. `known`: ROUGE-L with a prompt of any topic is at least `max_rouge_l`.
    """
    tokens = words(text)
    if not MIN_WORDS <= len(tokens) <= MAX_WORDS or not OPENING.match(text) or text[-1] in INTRODUCTION_ENDS:
        return "malformed"
    topic_words, text_words = f" {' '.join(words(topic))} ", f" {' '.join(tokens)} "
    for name in pool.topics:
        other_topic = f" {' '.join(name)} "
        if name and other_topic in text_words and other_topic not in topic_words:
            return "other_topic"
    if any(_is_similar(tokens, prompt_words, max_rouge_l) for prompt_words in pool.prompt_words):
        return "known"
    return "new"


def last_message(prompt: Prompt) -> str:
    """The content of a prompt's last message."""
    return prompt["messages"][-1]["content"]


def _is_similar(tokens: list[str], prompt_words: list[str], threshold: float) -> bool:
    """Whether ROUGE-L is at least `threshold`. The lengths alone exclude most pairs."""
    total = len(tokens) + len(prompt_words)
    bound = 2 * min(len(tokens), len(prompt_words)) / total if total else 0.0
    return bound >= threshold and lcs_f1(prompt_words, tokens) >= threshold


def _refuse_failures(completions: list[Completion], round_number: int) -> None:
    failures = Counter(completion.error["class"] for completion in completions if completion.error)
    if failures:
        listed = ", ".join(f"{name} {count}" for name, count in sorted(failures.items()))
        raise UserError(
            f"generate.self_instruct: {failures.total()} of {len(completions)} requests of round {round_number + 1} "
            f"failed ({listed}). The next round depends on them: run again. All responses so far are kept."
        )


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
