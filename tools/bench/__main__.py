"""Speeds on this machine, into metrics/bench.json: `python -m tools.bench generate`, `python -m tools.bench train`.

generate: requests a second at concurrency 64 against a local server that answers in 50 ms, by asking as the stage
does it and by the bare SDK in the same minutes, and how memory grows over 100,000 rows.
train: tokens a second, peak memory and loss beside TRL's GKDTrainer (tools/bench).
clean has a command of its own, tools/bench/clean.py.
"""

import argparse
import asyncio
import json
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import openai

from distill.core.errors import run_main
from distill.generation import query
from distill.generation.budget import Budget
from distill.generation.completions import Request
from distill.modeling.sampling import Sampling
from distill.params.schema import Runtime
from distill.params.teachers import ApiTeacher
from tools.bench import train as compare
from tools.bench.load_server import load_server
from tools.bench.results import write_section

DELAY_MS, CONCURRENCY = 50.0, 64
IDEAL = CONCURRENCY / (DELAY_MS / 1000)  # requests a second
SAMPLING = Sampling(max_tokens=16, temperature=0.7, top_p=1.0, seed=1)
RUNTIME = Runtime(threads=1, dtype="float32")


def teacher(url: str) -> ApiTeacher:
    """A teacher at the local server."""
    return ApiTeacher(
        name="bench", kind="openai", model="m", base_url=url, api_key_env="KEY", mode="live", concurrency=CONCURRENCY,
        requests_per_minute=None, tokens_per_minute=None, timeout_s=60.0, max_retries=5, price=None, on_missing="fail",
        extra_body={}, prompt_fraction=1.0, license=None,
    )  # fmt: skip


def resident_mb() -> float:
    """The memory that this process holds now, in MB."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * 4096 / 1e6


def requests(api: ApiTeacher, setup: query.Setup, count: int) -> list[Request]:
    """So many requests of short prompts."""
    prompts = ((f"p{number}", [{"role": "user", "content": f"What is {number}?"}]) for number in range(count))
    return [query.request(api, SAMPLING, setup, name, messages) for name, messages in prompts]


def ours(url: str, count: int, folder: Path) -> dict[str, float]:
    """Requests a second of asking, and the MB by which memory grew from the first answers to the last row."""
    api = teacher(url)
    setup = query.Setup(RUNTIME, 1, {"KEY": "none"}, folder, (), Budget(None, 0.0))
    items = requests(api, setup, count)
    first = min(2000, count // 10)
    query.ask(api, items[:first], SAMPLING, setup)  # with the probe; connections and code are warm after it
    before = resident_mb()
    start = time.perf_counter()
    asked = query.ask(api, items, SAMPLING, setup)
    seconds = time.perf_counter() - start
    for item in items:
        assert asked[item.id].error is None
    rows = count - first
    return {"requests_per_s": round(rows / seconds, 1), "memory_growth_mb": round(resident_mb() - before, 1)}


def bare_sdk(url: str, count: int) -> float:
    """Requests a second of the SDK alone: as many tasks, nothing kept."""

    async def all_of_it() -> float:
        waiting = iter(range(count))
        async with openai.AsyncOpenAI(api_key="none", base_url=url) as client:

            async def worker() -> None:
                for number in waiting:
                    await client.chat.completions.create(
                        model="m", messages=[{"role": "user", "content": f"What is {number}?"}], max_tokens=16,
                        temperature=0.7, seed=number, logprobs=True, top_logprobs=2,
                    )  # fmt: skip

            start = time.perf_counter()
            await asyncio.gather(*(worker() for _ in range(CONCURRENCY)))
            return count / (time.perf_counter() - start)

    return round(asyncio.run(all_of_it()), 1)


def generate(count: int, rows: int) -> dict[str, Any]:
    """Speed with `count` requests and memory over `rows` rows."""
    with tempfile.TemporaryDirectory() as name:
        with load_server("--delay-ms", str(DELAY_MS)) as url:
            sdk = [bare_sdk(url, count)]
            own = ours(url, count, Path(name) / "speed")["requests_per_s"]
            sdk.append(bare_sdk(url, count))
        result = {
            "requests": count,
            "concurrency": CONCURRENCY,
            "server_ms": DELAY_MS,
            "ideal_per_s": IDEAL,
            "requests_per_s": own,
            "bare_sdk_per_s": round(sum(sdk) / len(sdk), 1),
            "share_of_ideal": round(own / IDEAL, 3),
            "share_of_bare_sdk": round(own / (sum(sdk) / len(sdk)), 3),
        }
        if rows:
            with load_server("--delay-ms", "0") as url:
                grown = ours(url, rows, Path(name) / "memory")
            result |= {"rows": rows, "memory_growth_mb": grown["memory_growth_mb"]}
    return result


PARTS: dict[str, Callable[[argparse.Namespace], dict[str, Any]]] = {
    "generate": lambda given: generate(given.requests, given.rows),
    "train": lambda given: compare.train(
        compare.Options(given.steps, given.warmup, given.rounds, given.layers, not given.no_trl)
    ),
}


def main() -> None:
    options = argparse.ArgumentParser(prog="python -m tools.bench", description=__doc__)
    options.add_argument("part", choices=PARTS)
    options.add_argument("--requests", type=int, default=5000, help="generate: for the speed")
    options.add_argument("--rows", type=int, default=100_000, help="generate: for the memory; 0: not measured")
    options.add_argument("--steps", type=int, default=40, help="train: optimiser steps of each run")
    options.add_argument("--warmup", type=int, default=5, help="train: steps before the clock starts")
    options.add_argument("--rounds", type=int, default=2, help="train: runs of each, in turn")
    options.add_argument("--layers", type=int, default=8, help="train: of the student with the whole vocabulary")
    options.add_argument("--no-trl", action="store_true", help="train: ours alone")
    given = options.parse_args()
    result = PARTS[given.part](given)
    write_section(given.part, result)
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    run_main(main)
