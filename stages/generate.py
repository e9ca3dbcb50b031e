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
from distill.chat import Messages
from distill.errors import run
from distill.files import write_json, write_rows
from distill.fusing import fused
from distill.growing import grown
from distill.home import home
from distill.judging import judged
from distill.params import Generate, Grow, Mixture, Prompts, Teacher
from distill.prompts import Prompt, dressed, from_folder, from_jsonl

RESPONSES = Path("data/raw/responses.jsonl")
METRICS = Path("metrics/generate.json")
FUSED = ":fused"  # added to the aggregator's name for what it makes of others' answers; no teacher's name has a colon


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
        "judge_score": None,
        "fused_from": [],
    }


def more_prompts(prompts: list[Prompt], grow: Grow, teacher: Teacher, seed: int, setup: Setup) -> list[Prompt]:
    """The prompts and those that the teacher wrote from them."""
    how = Sampling(max_tokens=grow.max_tokens, temperature=grow.sampling_temperature, top_p=grow.top_p, seed=seed)

    def asker(named: list[tuple[str, Messages]]) -> list[Answer]:
        requests = [request(teacher, how, setup, name, messages) for name, messages in named]
        answers = ask(teacher, requests, how, setup)
        return [answers[item.id] for item in requests]

    result, counts = grown(prompts, grow, seed, asker)
    print(f"{teacher.name} wrote prompts: {', '.join(f'{name} {count}' for name, count in counts.items())}")
    return result


def mixed(
    rows: list[dict[str, Any]], mixture: Mixture, teachers: dict[str, Teacher], how: Sampling, setup: Setup
) -> list[dict[str, Any]]:
    """The rows with what judge and aggregator say of them, in order of prompt and teacher.

    Each is asked prompt by prompt or row by row, so that a failure of one teacher touches no other's rows.
    """
    made = []
    if mixture.aggregator is not None:
        for group, answer in fused(rows, teachers[mixture.aggregator], how, setup):
            of = [item["id"] for item in group]
            prompt = {"id": group[0]["prompt_id"], **{key: group[0][key] for key in ("topic", "messages")}}
            made.append({**row(prompt, f"{mixture.aggregator}{FUSED}", answer), "fused_from": of})
    rows = sorted([*rows, *made], key=lambda item: (item["prompt_id"], item["teacher"]))
    if mixture.judge is not None:
        rows, unrated = judged(rows, teachers[mixture.judge], how.seed, setup)
        print(f"{mixture.judge} as the judge gave no rating for {unrated} of {len(rows)} rows")
    return rows


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
    teachers = {teacher.name: teacher for teacher in params.teachers}
    prompts = read_prompts(generate.prompts)
    if generate.grow is not None:
        prompts = more_prompts(prompts, generate.grow, teachers[generate.grow.teacher], seed, setup)
    prompts = [dressed(prompt, generate.system_prompt, generate.few_shot) for prompt in prompts]
    rows = []
    for name, mine in divide(prompts, params.teachers, seed).items():
        if not mine:
            continue
        teacher = teachers[name]
        requests = [request(teacher, how, setup, prompt["id"], prompt["messages"]) for prompt in mine]
        answers = ask(teacher, requests, how, setup)
        rows += [row(prompt, teacher.name, answers[item.id]) for prompt, item in zip(mine, requests, strict=True)]
    rows.sort(key=lambda item: (item["prompt_id"], item["teacher"]))
    rows = mixed(rows, generate.mixture, teachers, how, setup)
    metrics = summary(rows)
    write_rows(RESPONSES, rows)
    write_json(METRICS, metrics)
    for name, counts in metrics.items():
        print(f"{name}: {counts['answered']} answered, {counts['failed']} failed")
        if counts["failed"]:
            print("  failures are rows with their reason; clean drops them, and the next generate asks them again")


if __name__ == "__main__":
    run(main)
