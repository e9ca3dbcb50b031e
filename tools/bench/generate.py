"""Speed and memory of querying an API, against a local server that responds after a fixed delay.

The speed is in requests a second at a concurrency of 64, sent as stage `generate` sends them. The bare SDK is measured
just before and after. The memory is what the process gains over many rows.
"""

import asyncio
import tempfile
import time
from pathlib import Path
from typing import Any

import openai

from distill.generation import query
from distill.generation.budget import Budget
from distill.generation.completions import Request
from distill.generation.requests import QueryContext, build_request
from distill.modeling.sampling import Sampling
from distill.params.schema import Runtime
from distill.params.teachers import ApiTeacher
from tools.bench.load_server import load_server

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
    """Memory that this process holds now, in MB."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * 4096 / 1e6


def requests(api: ApiTeacher, context: QueryContext, count: int) -> list[Request]:
    """Requests with short prompts."""
    prompts = ((f"p{number}", [{"role": "user", "content": f"What is {number}?"}]) for number in range(count))
    return [build_request(api, SAMPLING, context, name, messages) for name, messages in prompts]


def pipeline(url: str, count: int, folder: Path) -> dict[str, float]:
    """Requests a second of the stage's code, and the growth of memory in MB from the first responses to the last."""
    api = teacher(url)
    context = QueryContext(RUNTIME, 1, {"KEY": "none"}, folder, (), Budget(None, 0.0))
    items = requests(api, context, count)
    first = min(2000, count // 10)
    query.query(api, items[:first], SAMPLING, context)  # warm up: capability probe, connections, code
    before = resident_mb()
    start = time.perf_counter()
    result = query.query(api, items, SAMPLING, context)
    seconds = time.perf_counter() - start
    for item in items:
        assert result[item.id].error is None
    rows = count - first
    return {"requests_per_s": round(rows / seconds, 1), "memory_growth_mb": round(resident_mb() - before, 1)}


def bare_sdk(url: str, count: int) -> float:
    """Requests a second of the SDK alone, with as many tasks; responses are dropped."""

    async def measure() -> float:
        numbers = iter(range(count))
        async with openai.AsyncOpenAI(api_key="none", base_url=url) as client:

            async def worker() -> None:
                for number in numbers:
                    await client.chat.completions.create(
                        model="m", messages=[{"role": "user", "content": f"What is {number}?"}], max_tokens=16,
                        temperature=0.7, seed=number, logprobs=True, top_logprobs=2,
                    )  # fmt: skip

            start = time.perf_counter()
            await asyncio.gather(*(worker() for _ in range(CONCURRENCY)))
            return count / (time.perf_counter() - start)

    return round(asyncio.run(measure()), 1)


def measure_generate(count: int, rows: int) -> dict[str, Any]:
    """The section `generate`: the speed with `count` requests, and the memory over `rows` rows unless that is 0."""
    with tempfile.TemporaryDirectory() as name:
        with load_server("--delay-ms", str(DELAY_MS)) as url:
            sdk = [bare_sdk(url, count)]
            ours = pipeline(url, count, Path(name) / "speed")["requests_per_s"]
            sdk.append(bare_sdk(url, count))
        result = {
            "requests": count,
            "concurrency": CONCURRENCY,
            "server_ms": DELAY_MS,
            "ideal_per_s": IDEAL,
            "requests_per_s": ours,
            "bare_sdk_per_s": round(sum(sdk) / len(sdk), 1),
            "fraction_of_ideal": round(ours / IDEAL, 3),
            "fraction_of_bare_sdk": round(ours / (sum(sdk) / len(sdk)), 3),
        }
        if rows:
            with load_server("--delay-ms", "0") as url:
                growth = pipeline(url, rows, Path(name) / "memory")
            result |= {"rows": rows, "memory_growth_mb": growth["memory_growth_mb"]}
    return result
