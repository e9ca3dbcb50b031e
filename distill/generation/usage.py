"""Requests, failures, tokens and cost of each teacher: metrics/generate.json."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from distill.core.files import Row
from distill.generation.budget import cost
from distill.generation.completions import TOKENS
from distill.generation.query import QueryResult
from distill.params.teachers import Teacher

MANY_TRUNCATED = 0.1  # fraction of the responses from which a line says what to do


def count_usage(rows: Iterable[Row], teachers: Iterable[Teacher], probes: dict[str, Any]) -> dict[str, Any]:
    """Requests, responses, failures by class, tokens, cost and capabilities by teacher.

    `truncated` counts the responses that reached max_new_tokens. The cost includes the probe. It is null if an API's
    price is unknown.
    """
    result: dict[str, Any] = {
        teacher.name: {"requests": 0, "answered": 0, "truncated": 0, "failed": {}}
        | dict.fromkeys((*TOKENS, "cost_usd"), 0)
        for teacher in teachers
    }
    for row in rows:
        counts = result[row["teacher"]]
        counts["requests"] += 1
        if row["error"] is None:
            counts["answered"] += 1
            counts["truncated"] += row["finish_reason"] == "length"
        else:
            kind = row["error"]["class"]
            counts["failed"][kind] = counts["failed"].get(kind, 0) + 1
        for key in TOKENS:
            counts[key] += (row["usage"] or {}).get(key, 0)
    for teacher in teachers:
        counts, probe = result[teacher.name], probes[teacher.name]
        counts["failed"] = dict(sorted(counts["failed"].items()))
        if teacher.kind == "openai":
            tokens = {key: counts[key] + (probe or {}).get(key, 0) for key in TOKENS}
            counts["cost_usd"] = None if teacher.price is None else round(cost(teacher.price, tokens), 6)
        counts["probe"] = probe
    return result


def usage_lines(metrics: dict[str, Any], results: Mapping[str, QueryResult]) -> Iterator[str]:
    """Lines for people: responses, failures and missing capabilities by teacher."""
    for name, counts in metrics.items():
        num_failed = sum(counts["failed"].values())
        truncated = f"{counts['truncated']} of them truncated"
        failed = f"{num_failed} failed {counts['failed'] or ''}".rstrip()
        yield f"{name}: {counts['answered']} responses, {truncated}, {failed}"
        if counts["truncated"] > MANY_TRUNCATED * counts["answered"]:
            yield "  truncated responses reached generate.max_new_tokens: raise it, or clean.drop_truncated drops them"
        if num_failed:
            yield "  failures are rows with their reason; clean drops them, and the next generate sends them again"
        if results[name].missing_capabilities:
            yield f"  its rows are marked: {', '.join(results[name].missing_capabilities)}"
