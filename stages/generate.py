"""Asks every teacher its prompts: `python -m stages.generate`.

Reads  the prompts that params name, params seed, runtime, teachers, generate
Writes data/raw/responses.jsonl, metrics/generate.json; journals in .distill/journal
"""

import hashlib
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from distill import params as params_file
from distill.answers import Answer, Sampling
from distill.asking import Setup, ask, request
from distill.errors import run
from distill.files import write_json, write_rows
from distill.home import home
from distill.params import Generate, Prompts, Teacher
from distill.prompts import Prompt, dressed, from_folder, from_jsonl

RESPONSES = Path("data/raw/responses.jsonl")
METRICS = Path("metrics/generate.json")


def read_prompts(source: Prompts) -> list[Prompt]:
    """The prompts by id, from where params say."""
    if source.source == "jsonl":
        return from_jsonl(source)
    if source.source == "folder":
        return from_folder(source)
    from distill.dataset_prompts import from_dataset  # takes a second to import, and files need none of it

    prompts, passed_over = from_dataset(source)
    print(f"{source.name}: {len(prompts)} prompts; {passed_over} rows without one or with an earlier one's passed over")
    return prompts


def divide(prompts: list[dict[str, Any]], teachers: list[Teacher], seed: int) -> dict[str, list[dict[str, Any]]]:
    """The prompts of each teacher by name: all for a share of 1, else its own stretch of a seeded hash order."""
    places = {row["id"]: _unit(f"{seed}/{row['id']}") for row in prompts}
    result: dict[str, list[dict[str, Any]]] = {}
    start = 0.0
    for teacher in teachers:
        if teacher.share == 1:
            result[teacher.name] = prompts
            continue
        end = start + teacher.share
        result[teacher.name] = [row for row in prompts if start <= places[row["id"]] < end]
        start = end
    return result


def sampling(generate: Generate, seed: int) -> Sampling:
    """How every teacher is asked to sample."""
    return Sampling(
        max_tokens=generate.max_tokens, temperature=generate.sampling_temperature, top_p=generate.top_p, seed=seed
    )


def row(prompt: dict[str, Any], teacher: str, answer: Answer) -> dict[str, Any]:
    """One line of data/raw/responses.jsonl."""
    return {
        "id": f"{prompt['id']}@{teacher}",
        "prompt_id": prompt["id"],
        "topic": prompt["topic"],
        "teacher": teacher,
        "messages": prompt["messages"],
        "response": answer.response.strip(),
        "finish_reason": answer.finish_reason,
        "logprobs": answer.logprobs,
        "usage": answer.usage,
        "error": answer.error,
    }


def summary(rows: Iterable[dict[str, Any]]) -> dict[str, Any]:
    """Counts and tokens by teacher."""
    result: dict[str, Any] = {}
    for item in rows:
        teacher = result.setdefault(
            item["teacher"], {"requested": 0, "answered": 0, "failed": 0, "prompt_tokens": 0, "completion_tokens": 0}
        )
        teacher["requested"] += 1
        teacher["failed" if item["error"] else "answered"] += 1
        for key in ("prompt_tokens", "completion_tokens"):
            teacher[key] += (item["usage"] or {}).get(key, 0)
    return result


def _unit(text: str) -> float:
    """A number in [0, 1) that depends on the text alone."""
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") / 2**64


def main() -> None:
    params = params_file.load()
    generate, runtime, seed = params.generate, params.runtime, params.seed
    setup = Setup(runtime, generate.batch_size, os.environ, home(os.environ, Path.cwd()) / "journal")
    how = sampling(generate, seed)
    prompts = [dressed(prompt, generate.system_prompt, generate.few_shot) for prompt in read_prompts(generate.prompts)]
    parts = divide(prompts, params.teachers, seed)
    rows = []
    for teacher in params.teachers:
        mine = parts[teacher.name]
        requests = [request(teacher, how, setup, prompt["id"], prompt["messages"]) for prompt in mine]
        answers = ask(teacher, requests, how, setup)
        rows += [row(prompt, teacher.name, answers[item.id]) for prompt, item in zip(mine, requests, strict=True)]
    rows.sort(key=lambda item: (item["prompt_id"], item["teacher"]))
    metrics = summary(rows)
    write_rows(RESPONSES, rows)
    write_json(METRICS, metrics)
    for name, counts in metrics.items():
        print(f"{name}: {counts['answered']} answered, {counts['failed']} failed")
        if counts["failed"]:
            print("  failures are rows with their reason; clean drops them, and the next generate asks them again")


if __name__ == "__main__":
    run(main)
