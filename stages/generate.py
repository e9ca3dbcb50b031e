"""Asks every teacher its prompts: `python -m stages.generate`.

Reads  the prompts that params name, params seed, runtime, teachers, generate
Writes data/raw/responses.jsonl, metrics/generate.json; journals in .distill/journal,
       metrics/environment/generate.json
"""

import hashlib
import os
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from tqdm import tqdm

from distill import api_teacher, environment, local_teacher, models
from distill import params as params_file
from distill.answers import Answer, Request, Sampling
from distill.errors import UserError, run
from distill.files import read_rows, value_hash, write_json, write_rows
from distill.home import home
from distill.journal import Journal
from distill.params import ApiTeacher, Generate, LocalTeacher, Runtime, Teacher

RESPONSES = Path("data/raw/responses.jsonl")
METRICS = Path("metrics/generate.json")
ROLES = ("system", "user", "assistant")


def checked(row: dict[str, Any], number: int, source: str) -> dict[str, Any]:
    """The row if it is a prompt: id, topic, messages that end with the user's. Raises UserError otherwise."""
    messages = row.get("messages")
    good = (
        all(isinstance(row.get(key), str) and row[key] for key in ("id", "topic"))
        and isinstance(messages, list)
        and messages
        and all(isinstance(turn, dict) and turn.get("role") in ROLES for turn in messages)
        and all(isinstance(turn.get("content"), str) and turn["content"].strip() for turn in messages)
        and messages[-1]["role"] == "user"
    )
    if not good:
        raise UserError(
            f"{source}, row {number} ({row.get('id')!r}) is not a prompt. Each line must be like "
            '{"id": "bees/fact", "topic": "bees", "messages": [{"role": "user", "content": "..."}]}, '
            f"with roles {ROLES} and the user last."
        )
    return row


def read_prompts(path: Path, system_prompt: str | None) -> list[dict[str, Any]]:
    """The prompts of a JSONL file by id, with the system prompt put first where one is set."""
    rows = [checked(row, number, str(path)) for number, row in enumerate(read_rows(path, "you or git"), start=1)]
    if not rows:
        raise UserError(f"{path} has no prompts.")
    seen: set[str] = set()
    for row in rows:
        if row["id"] in seen:
            raise UserError(f"{path} has two prompts with the id {row['id']!r}; ids must be unique.")
        seen.add(row["id"])
    if system_prompt is not None:
        system = {"role": "system", "content": system_prompt}
        rows = [{**row, "messages": [system, *row["messages"]]} for row in rows]
    return sorted(rows, key=lambda row: row["id"])


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


def request(prompt: dict[str, Any]) -> Request:
    """The request for a prompt; its id changes with the messages, so that no stale answer is ever taken for it."""
    return Request(f"{prompt['id']}#{value_hash(prompt['messages'])[:12]}", prompt["messages"])


def journal_settings(teacher: Teacher, generate: Generate, seed: int, dtype: str) -> dict[str, Any]:
    """All that an answer depends on beside its messages. Never a key, a timeout or a concurrency."""
    settings: dict[str, Any] = {
        "kind": teacher.kind,
        "model": teacher.model,
        "max_tokens": generate.max_tokens,
        "sampling_temperature": generate.sampling_temperature,
        "top_p": generate.top_p,
        "seed": seed,
    }
    if teacher.kind == "local":
        local = {"revision": teacher.revision, "sha256": teacher.sha256, "dtype": dtype}
        return settings | local | {"batch_size": generate.batch_size}
    return settings | {"base_url": teacher.base_url}


def ask_local(
    teacher: LocalTeacher, requests: list[Request], answered: set[str], generate: Generate, runtime: Runtime, seed: int
) -> Iterator[list[Answer]]:
    """Answers of a local teacher, batch by batch; a batch with an open request is decoded whole."""
    dtype = models.compute_dtype(runtime.dtype)
    model, tokenizer = models.load(teacher.model, dtype, teacher.revision, teacher.sha256)
    batches = local_teacher.batches(tokenizer, requests, generate.batch_size)
    todo = [batch for batch in batches if any(item.id not in answered for item in batch)]
    for answers in local_teacher.answer(model, tokenizer, todo, sampling(generate, seed)):
        yield [answer for answer in answers if answer.id not in answered]


def ask_api(
    teacher: ApiTeacher, requests: list[Request], answered: set[str], generate: Generate, seed: int
) -> Iterator[list[Answer]]:
    """Answers of an endpoint, in the order of arrival."""
    key = os.environ.get(teacher.api_key_env)
    if not key:
        raise UserError(
            f"teacher {teacher.name!r} needs a key in the environment variable {teacher.api_key_env}, which is not "
            f"set. Set it (for a server that wants none, to any word) and run again; nothing was sent."
        )
    todo = [item for item in requests if item.id not in answered]
    yield from api_teacher.answer(teacher, key, todo, sampling(generate, seed))


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
    models.prepare(runtime.threads, seed)
    prompts = read_prompts(Path(generate.prompts), generate.system_prompt)
    rows = []
    for teacher in params.teachers:
        mine = divide(prompts, params.teachers, seed)[teacher.name]
        requests = {prompt["id"]: request(prompt) for prompt in mine}
        dtype = str(models.compute_dtype(runtime.dtype)).removeprefix("torch.")
        settings = journal_settings(teacher, generate, seed, dtype)
        path = home(os.environ, Path.cwd()) / "journal" / f"{teacher.name}-{value_hash(settings)[:16]}.jsonl"
        with Journal(path, settings) as journal:
            answered = {item.id for item in requests.values() if item.id in journal.answers}
            if len(answered) < len(requests):
                asked = list(requests.values())
                answers = (
                    ask_local(teacher, asked, answered, generate, runtime, seed)
                    if teacher.kind == "local"
                    else ask_api(teacher, asked, answered, generate, seed)
                )
                bar = tqdm(total=len(requests), initial=len(answered), desc=teacher.name, unit="answer")
                with bar:
                    for some in answers:
                        journal.append(some)
                        bar.update(len(some))
            else:
                print(f"{teacher.name}: all {len(requests)} answers are in the journal already", file=sys.stderr)
            rows += [row(prompt, teacher.name, journal.latest[requests[prompt["id"]].id]) for prompt in mine]
    rows.sort(key=lambda item: (item["prompt_id"], item["teacher"]))
    metrics = summary(rows)
    write_rows(RESPONSES, rows)
    write_json(METRICS, metrics)
    environment.record("generate", runtime)
    for name, counts in metrics.items():
        print(f"{name}: {counts['answered']} answered, {counts['failed']} failed")
        if counts["failed"]:
            print("  failures are rows with their reason; clean drops them, and the next generate asks them again")


if __name__ == "__main__":
    run(main)
