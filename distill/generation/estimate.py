"""What asking will take, before anything is sent."""

import hashlib
from collections import ChainMap, Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from distill.generation.api import capabilities
from distill.generation.budget import BYTES_A_TOKEN, Budget, cost, likely_prompt_tokens, most_prompt_tokens
from distill.generation.completions import Answer, Request
from distill.generation.journal import TOKENS
from distill.generation.query import Asked, journal, journal_path
from distill.modeling.sampling import Sampling
from distill.params.teachers import Teacher

LINE = "{:<16} {:>9} {:>9} {:>14} {:>18} {:>12} {:>12}"
HEADS = ("teacher", "answered", "to send", "prompt tokens", "completion tokens", "USD, about", "USD, at most")
MOST_WORDS = 100  # of an imagined prompt


@dataclass
class Forecast:
    """Answers in place of teachers (asking.Setup.forecast), sends nothing, and counts what would be sent.

    What a journal in `folder` knows is answered from there. Other answers are imagined, as long as may be, with
    `items` new prompts in each where a teacher is to write some: what is asked about answers is then counted too.
    """

    folder: Path
    items: int
    known: Counter[str] = field(default_factory=Counter)  # requests by teacher, as all that follow
    to_send: Counter[str] = field(default_factory=Counter)
    likely: dict[str, Counter[str]] = field(default_factory=dict)
    most: dict[str, Counter[str]] = field(default_factory=dict)
    probed: set[str] = field(default_factory=set)

    def __call__(self, teacher: Teacher, requests: list[Request], sampling: Sampling) -> Asked:
        """The answers to requests, which are counted."""
        answers: Mapping[str, Answer] = {}
        answered: set[str] = set()
        if journal_path(teacher, self.folder).exists():
            with journal(teacher, self.folder) as known:
                answers, answered = known.latest, known.answered
                if teacher.kind == "openai" and capabilities.facts(teacher, known) is not None:
                    self.probed.add(teacher.name)
        todo = [item for item in requests if item.id not in answered]
        self.known[teacher.name] += len(requests) - len(todo)
        self._count(teacher, todo, sampling.max_tokens)
        if todo and teacher.kind == "openai" and teacher.name not in self.probed:
            self.probed.add(teacher.name)
            self._count(teacher, capabilities.requests(teacher, True).values(), capabilities.TOKENS)
        imagined = {item.id: self._imagined(item, sampling.max_tokens) for item in todo}
        return Asked(ChainMap(imagined, answers), None, [])  # type: ignore[arg-type]  # only read

    def table(self, teachers: Iterable[Teacher], budget: Budget) -> str:
        """A table by teacher: requests left to send, with the probe's, prompt tokens (of usual text), completion
        tokens (at most), cost with these, and the cost that a budget must hold (at most a token for a byte of the
        prompt)."""
        lines = [LINE.format(*HEADS)]
        about = most = 0.0
        for teacher in teachers:
            tokens, bound = (part.get(teacher.name, Counter()) for part in (self.likely, self.most))
            costs = ["0", "0"]
            if teacher.kind == "openai":
                prices = [cost(teacher.price, part) for part in (tokens, bound)]
                about, most = about + prices[0], most + prices[1]
                costs = ["unknown"] * 2 if teacher.price is None else [f"{value:.4f}" for value in prices]
            counts = self.known[teacher.name], self.to_send[teacher.name], *(tokens[key] for key in TOKENS)
            lines.append(LINE.format(teacher.name, *counts, *costs))
        limit = "none" if budget.limit is None else f"{budget.limit:g} USD"
        lines.append(f"all: about {about:.4f} USD, at most {most:.4f}; spent so far {budget.spent:.4f}; budget {limit}")
        return "\n".join(lines)

    def _count(self, teacher: Teacher, requests: Iterable[Request], new: int) -> None:
        for item in requests:
            self.to_send[teacher.name] += 1
            for part, tokens in ((self.likely, likely_prompt_tokens), (self.most, most_prompt_tokens)):
                counts = part.setdefault(teacher.name, Counter())
                counts.update({"prompt_tokens": tokens(item.messages), "completion_tokens": new})

    def _imagined(self, request: Request, tokens: int) -> Answer:
        """An answer of so many tokens: a rating, for a judge's, and a list of prompts like no other."""
        size = BYTES_A_TOKEN * tokens // self.items
        width = max(7, size // MOST_WORDS)
        lines = ["[[5]]"]
        for number in range(1, self.items + 1):
            letters = hashlib.shake_256(f"{request.id}/{number}".encode()).hexdigest(size // 2 + 1)
            lines.append(f"{number}. " + " ".join(letters[at : at + width] for at in range(0, size, width + 1)))
        return Answer(request.id, "\n".join(lines), "stop", None, None, None)
