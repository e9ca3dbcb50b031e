"""Forecast of requests, tokens and cost, without sending anything."""

import hashlib
from collections import ChainMap, Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from tabulate import tabulate

from distill.generation.api import capabilities
from distill.generation.budget import BYTES_PER_TOKEN, Budget, cost, estimated_prompt_tokens, max_prompt_tokens
from distill.generation.completions import TOKENS, Completion, Request
from distill.generation.query import QueryResult
from distill.generation.teacher_journals import journal_path, open_journal
from distill.modeling.sampling import Sampling
from distill.params.teachers import Teacher

HEADERS = ("teacher", "completed", "to send", "prompt tokens", "completion tokens", "USD, about", "USD, at most")
MAX_WORDS = 100  # of a placeholder prompt


@dataclass
class DryRun:
    """Completes requests in place of the teachers (QueryContext.dry_run), sends nothing, and counts requests.

    Completions in a journal of `folder` are reused. All others are placeholders of maximum length. A placeholder has
    `num_prompts` new prompts, which count like prompts of self-instruct, and a rating of a judge.
    """

    folder: Path
    num_prompts: int
    completed: Counter[str] = field(default_factory=Counter)  # requests by teacher, like the following
    to_send: Counter[str] = field(default_factory=Counter)
    estimated: dict[str, Counter[str]] = field(default_factory=dict)  # tokens
    maximum: dict[str, Counter[str]] = field(default_factory=dict)
    probed: set[str] = field(default_factory=set)

    def __call__(self, teacher: Teacher, requests: list[Request], sampling: Sampling) -> QueryResult:
        """The completions of the requests, which are counted."""
        latest: Mapping[str, Completion] = {}
        completed: set[str] = set()
        if journal_path(teacher, self.folder).exists():
            with open_journal(teacher, self.folder) as journal:
                latest, completed = journal.latest, journal.completed
                if teacher.kind == "openai" and capabilities.known_capabilities(teacher, journal) is not None:
                    self.probed.add(teacher.name)
        todo = [request for request in requests if request.id not in completed]
        self.completed[teacher.name] += len(requests) - len(todo)
        self._count(teacher, todo, sampling.max_tokens)
        if todo and teacher.kind == "openai" and teacher.name not in self.probed:
            self.probed.add(teacher.name)
            self._count(teacher, capabilities.probe_requests(teacher, True).values(), capabilities.MAX_NEW_TOKENS)
        placeholders = {request.id: self._placeholder(request, sampling.max_tokens) for request in todo}
        return QueryResult(ChainMap(placeholders, latest), None, [])  # type: ignore[arg-type]  # only read

    def table(self, teachers: Iterable[Teacher], budget: Budget) -> str:
        """A row for each teacher and a line for all.

        Requests include the probe. Prompt tokens are estimated for usual text, completion tokens and the last column
        are upper bounds. A budget must hold the last column: one token for each byte of a prompt.
        """
        rows: list[tuple[str, ...]] = []
        total_about = total_max = 0.0
        for teacher in teachers:
            estimated, maximum = (counts.get(teacher.name, Counter()) for counts in (self.estimated, self.maximum))
            costs = ["0", "0"]
            if teacher.kind == "openai":
                about, at_most = cost(teacher.price, estimated), cost(teacher.price, maximum)
                total_about, total_max = total_about + about, total_max + at_most
                costs = ["unknown"] * 2 if teacher.price is None else [f"{about:.4f}", f"{at_most:.4f}"]
            counts = self.completed[teacher.name], self.to_send[teacher.name], *(estimated[key] for key in TOKENS)
            rows.append((teacher.name, *map(str, counts), *costs))
        limit = "none" if budget.limit is None else f"{budget.limit:g} USD"
        alignment = ("left", *["right"] * (len(HEADERS) - 1))
        table = tabulate(rows, HEADERS, tablefmt="plain", disable_numparse=True, colalign=alignment)
        return (
            f"{table}\nall: about {total_about:.4f} USD, at most {total_max:.4f}; "
            f"spent so far {budget.spent:.4f}; budget {limit}"
        )

    def _count(self, teacher: Teacher, requests: Iterable[Request], max_new_tokens: int) -> None:
        for request in requests:
            self.to_send[teacher.name] += 1
            for counts, count_tokens in (
                (self.estimated, estimated_prompt_tokens),
                (self.maximum, max_prompt_tokens),
            ):
                tokens = {"prompt_tokens": count_tokens(request.messages), "completion_tokens": max_new_tokens}
                counts.setdefault(teacher.name, Counter()).update(tokens)

    def _placeholder(self, request: Request, num_tokens: int) -> Completion:
        """A completion of maximum length: a rating for the judge, and a list of unique prompts."""
        size = BYTES_PER_TOKEN * num_tokens // self.num_prompts
        width = max(7, size // MAX_WORDS)
        lines = ["[[5]]"]
        for number in range(1, self.num_prompts + 1):
            letters = hashlib.shake_256(f"{request.id}/{number}".encode()).hexdigest(size // 2 + 1)
            words = " ".join(letters[start : start + width] for start in range(0, size, width + 1))
            lines.append(f"{number}. {words}")
        return Completion(request.id, "\n".join(lines), "stop", None, None, None)
