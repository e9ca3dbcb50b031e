"""Auxiliary calls of a teacher (self-instruct, judging, aggregation) and their usage."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any, Literal

from distill.generation.budget import cost
from distill.generation.completions import TOKENS, Completion, Request
from distill.generation.query import QueryResult, query
from distill.generation.requests import QueryContext, build_request
from distill.modeling.sampling import Sampling
from distill.modeling.templates import Messages
from distill.params.teachers import Teacher

Task = Literal["self_instruct", "judge", "aggregator"]
# the first part of each request's name, on which its id depends: journals on disk have these ids
REQUEST_PREFIXES: dict[Task, str] = {"self_instruct": "grow", "judge": "judge", "aggregator": "fuse"}
TRAINED_ON: tuple[Task, ...] = ("aggregator",)  # students learn from its responses: required capabilities apply


@dataclass(frozen=True)
class AuxiliaryCall:
    """The requests of one task to a teacher by name, and their completions."""

    task: Task
    teacher: Teacher
    requests: dict[str, Request]
    result: QueryResult

    def __getitem__(self, name: str) -> Completion:
        return self.result[self.requests[name].id]


def call_auxiliary(
    task: Task, teacher: Teacher, prompts: dict[str, Messages], sampling: Sampling, context: QueryContext
) -> AuxiliaryCall:
    """Queries a teacher with messages by name, through its journal as for any prompt."""
    if task not in TRAINED_ON:
        context = replace(context, required_capabilities=())
    prefix = REQUEST_PREFIXES[task]
    requests = {
        name: build_request(teacher, sampling, context, f"{prefix}/{name}", messages)
        for name, messages in prompts.items()
    }
    return AuxiliaryCall(task, teacher, requests, query(teacher, list(requests.values()), sampling, context))


def add_auxiliary_usage(metrics: dict[str, Any], calls: Iterable[AuxiliaryCall]) -> dict[str, Any]:
    """The usage by teacher with a section `auxiliary` by task. `cost_usd` then includes the auxiliary calls."""
    result = {name: dict(counts) for name, counts in metrics.items()}
    for call in calls:
        completions = [call[name] for name in call.requests]
        tokens = {key: sum((completion.usage or {}).get(key, 0) for completion in completions) for key in TOKENS}
        counts = result[call.teacher.name]
        tasks = counts.setdefault("auxiliary", {})
        before = tasks.get(call.task, {"requests": 0, "failed": {}} | dict.fromkeys(TOKENS, 0))
        failures = Counter(item.error["class"] for item in completions if item.error) + Counter(before["failed"])
        tasks[call.task] = {
            "requests": before["requests"] + len(completions),
            "failed": dict(sorted(failures.items())),
            **{key: before[key] + tokens[key] for key in TOKENS},
        }
        if call.teacher.kind == "openai" and call.teacher.price is not None:
            counts["cost_usd"] = round(counts["cost_usd"] + cost(call.teacher.price, tokens), 6)
    return result
