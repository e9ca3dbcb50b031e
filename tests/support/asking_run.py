"""Asking as a stage does it, small: for processes that tests start and kill."""

from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import chat_server
import forks

from distill.generation import query
from distill.generation.completions import Request
from distill.generation.query import Asked, Setup
from distill.modeling.sampling import Sampling
from distill.params.schema import Runtime
from distill.params.teachers import ApiTeacher
from stages import generate

KEY = "sk-never-to-be-seen-7f3a"
SAMPLING = Sampling(max_tokens=16, temperature=0.7, top_p=0.9, seed=5)
NEEDS = ("logprobs", "seed", "temperature", "usage")


def prompts(count: int) -> list[dict[str, Any]]:
    return [
        {"id": f"p{number:04}", "topic": "t", "messages": [{"role": "user", "content": f"question {number:04}"}]}
        for number in range(count)
    ]


def teacher(url: str, **changes: Any) -> ApiTeacher:
    return ApiTeacher(**chat_server.api_teacher(url, **changes))


def setup(folder: Path, asked: ApiTeacher, budget: float | None = None, needs: tuple[str, ...] = NEEDS) -> Setup:
    money = query.budget(budget, [asked], folder)
    return Setup(Runtime(threads=1, dtype="float32"), 8, {"TINY_KEY": KEY}, folder, needs, money)


def requests(asked: ApiTeacher, how: Setup, count: int) -> list[Request]:
    return [query.request(asked, SAMPLING, how, item["id"], item["messages"]) for item in prompts(count)]


def ask(folder: Path, asked: ApiTeacher, count: int, **options: Any) -> Asked:
    how = setup(folder, asked, **options)
    return query.ask(asked, requests(asked, how, count), SAMPLING, how)


def output(asked: ApiTeacher, found: Asked, folder: Path, count: int) -> list[dict[str, Any]]:
    """The rows as the stage writes them."""
    items = requests(asked, setup(folder, asked), count)
    return [
        generate.row(prompt, asked.name, 0, found[item.id], found.degraded)
        for prompt, item in zip(prompts(count), items, strict=True)
    ]


def run(folder: str, url: str, count: int, changes: dict[str, Any]) -> None:
    """In a process of its own."""
    ask(Path(folder), teacher(url, **changes), count)


def start(folder: Path, url: str, count: int, **changes: Any) -> BaseProcess:
    """Starts `run` in a process that can be killed at any moment."""
    return forks.start(run, str(folder), url, count, changes)
