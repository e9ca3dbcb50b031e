"""What a teacher does beside answering prompts (growing them, judging or fusing answers), and what that takes."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

from distill.generation.budget import cost
from distill.generation.completions import Answer, Request
from distill.generation.journal import TOKENS
from distill.generation.query import Asked, Setup, ask, request
from distill.modeling.chat import Messages
from distill.modeling.sampling import Sampling
from distill.params.teachers import Teacher

NEEDS_SCORES = (
    "fuse",
)  # tasks whose answers students learn from: what generate.required_capabilities asks of teachers holds for them


@dataclass(frozen=True)
class Help:
    """The requests of one task (grow, judge, fuse) to a teacher by their names, and its answers."""

    task: str
    teacher: Teacher
    requests: dict[str, Request]
    asked: Asked

    def __getitem__(self, name: str) -> Answer:
        return self.asked[self.requests[name].id]


def helped(task: str, teacher: Teacher, named: dict[str, Messages], how: Sampling, setup: Setup) -> Help:
    """Asks a teacher, through its journal as for any prompt."""
    if task not in NEEDS_SCORES:
        setup = replace(setup, needs=())
    requests = {name: request(teacher, how, setup, f"{task}/{name}", messages) for name, messages in named.items()}
    return Help(task, teacher, requests, ask(teacher, list(requests.values()), how, setup))


def with_help(metrics: dict[str, Any], helps: Iterable[Help]) -> dict[str, Any]:
    """The counts of metrics/generate.json with the help of each teacher by task; the cost has the help's."""
    result = {name: dict(counts) for name, counts in metrics.items()}
    for help_ in helps:
        answers = [help_[name] for name in help_.requests]
        tokens = {key: sum((answer.usage or {}).get(key, 0) for answer in answers) for key in TOKENS}
        counts = result[help_.teacher.name]
        tasks = counts.setdefault("help", {})
        before = tasks.get(help_.task, {"requests": 0, "failed": {}} | dict.fromkeys(TOKENS, 0))
        failures = Counter(answer.error["class"] for answer in answers if answer.error) + Counter(before["failed"])
        tasks[help_.task] = {
            "requests": before["requests"] + len(answers),
            "failed": dict(sorted(failures.items())),
            **{key: before[key] + tokens[key] for key in TOKENS},
        }
        if help_.teacher.kind == "openai" and help_.teacher.price is not None:
            counts["cost_usd"] = round(counts["cost_usd"] + cost(help_.teacher.price, tokens), 6)
    return result
