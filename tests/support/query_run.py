"""A small query like that of the stage, for processes that tests start and kill."""

from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import chat_server
import forks

from distill.generation.completions import Request
from distill.generation.query import QueryResult, query
from distill.generation.requests import QueryContext, build_request
from distill.generation.rows import response_row
from distill.generation.teacher_journals import remaining_budget
from distill.modeling.sampling import Sampling
from distill.params.schema import Runtime
from distill.params.teachers import ApiTeacher

KEY = "sk-never-to-be-seen-7f3a"
SAMPLING = Sampling(max_tokens=16, temperature=0.7, top_p=0.9, seed=5)
ALL_CAPABILITIES = ("logprobs", "seed", "temperature", "usage")


def prompts(count: int) -> list[dict[str, Any]]:
    return [
        {"id": f"p{number:04}", "topic": "t", "messages": [{"role": "user", "content": f"question {number:04}"}]}
        for number in range(count)
    ]


def teacher(url: str, **changes: Any) -> ApiTeacher:
    return ApiTeacher(**chat_server.api_teacher(url, **changes))


def query_context(
    folder: Path, api: ApiTeacher, budget: float | None = None, required: tuple[str, ...] = ALL_CAPABILITIES
) -> QueryContext:
    remaining = remaining_budget(budget, [api], folder)
    return QueryContext(Runtime(threads=1, dtype="float32"), 8, {"TINY_KEY": KEY}, folder, required, remaining)


def requests(api: ApiTeacher, context: QueryContext, count: int) -> list[Request]:
    return [build_request(api, SAMPLING, context, prompt["id"], prompt["messages"]) for prompt in prompts(count)]


def query_teacher(folder: Path, api: ApiTeacher, count: int, **options: Any) -> QueryResult:
    context = query_context(folder, api, **options)
    return query(api, requests(api, context, count), SAMPLING, context)


def response_rows(api: ApiTeacher, result: QueryResult, folder: Path, count: int) -> list[dict[str, Any]]:
    """The rows as the stage writes them."""
    return [
        response_row(prompt, api.name, 0, result[request.id], result.missing_capabilities)
        for prompt, request in zip(prompts(count), requests(api, query_context(folder, api), count), strict=True)
    ]


def run(folder: str, url: str, count: int, changes: dict[str, Any]) -> None:
    """Target of `start`."""
    query_teacher(Path(folder), teacher(url, **changes), count)


def start(folder: Path, url: str, count: int, **changes: Any) -> BaseProcess:
    """Starts `run` in a process that can be killed at any moment."""
    return forks.start(run, str(folder), url, count, changes)
