"""Time and peak memory of stage `clean` on made-up rows."""

import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from distill.core.errors import UserError
from distill.core.files import write_rows
from distill.core.response_row import Message, ResponseRow, Usage

ROOT = Path(__file__).parents[2]
ROWS_PER_TOPIC = 50
TOKENS = 64  # log-probabilities of a row
DUPLICATES, NEAR_DUPLICATES, LOOPS, LEAKS = 0.03, 0.03, 0.02, 0.01  # fractions of rows that are dropped


def made_up_rows(count: int, seed: int = 0) -> Iterator[dict[str, Any]]:
    """Rows as stage `generate` writes them, with Zipf-distributed words.

    Some repeat an earlier response, loop, or contain an earlier prompt.
    """
    generator = random.Random(seed)
    vocabulary = [
        f"{generator.choice('bdfgklmnprst')}{generator.choice('aeiou')}{number:x}" for number in range(20_000)
    ]
    weights = [1 / rank for rank in range(1, len(vocabulary) + 1)]
    stream = generator.choices(vocabulary, weights, k=1_000_000)

    def text(low: int, high: int) -> list[str]:
        start = generator.randrange(len(stream) - high)
        words = stream[start : start + generator.randint(low, high)]
        return [word if generator.random() < 0.8 else generator.choice(vocabulary) for word in words]

    recent: list[tuple[list[str], list[str]]] = []
    for number in range(count):
        prompt, response = text(15, 40), text(20, 120)
        kind = generator.random()
        if recent and kind < DUPLICATES:
            response = generator.choice(recent)[1]
        elif recent and kind < DUPLICATES + NEAR_DUPLICATES:
            response = list(generator.choice(recent)[1])
            response[-1] = "other"
        elif kind < DUPLICATES + NEAR_DUPLICATES + LOOPS:
            response = response[:4] * 20
        elif recent and kind < DUPLICATES + NEAR_DUPLICATES + LOOPS + LEAKS:
            response = [*response[:20], *generator.choice(recent)[0]]
        if len(recent) < 1000:
            recent.append((prompt, response))
        else:
            recent[generator.randrange(1000)] = (prompt, response)
        prompt_id = f"topic-{number // ROWS_PER_TOPIC:07d}/{number % ROWS_PER_TOPIC:02d}"
        yield ResponseRow(
            id=f"{prompt_id}@made-up",
            prompt_id=prompt_id,
            topic=prompt_id.partition("/")[0],
            teacher="made-up",
            messages=[Message(role="user", content=" ".join(prompt))],
            response=" ".join(response),
            finish_reason="stop",
            logprobs=[-round(generator.random(), 4) for _ in range(TOKENS)],
            usage=Usage(prompt_tokens=len(prompt), completion_tokens=TOKENS),
            error=None,
        ).to_json()


def measure_run(count: int) -> dict[str, Any]:
    """Seconds and peak memory of the stage's command on this many rows, with the stage's own counts."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        shutil.copy(ROOT / "params.yaml", folder)
        path = folder / "data/raw/responses.jsonl"
        write_rows(path, made_up_rows(count))
        size = path.stat().st_size
        started = time.monotonic()
        command = [sys.executable, "-m", "stages.clean"]
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        process = subprocess.Popen(command, cwd=folder, env=environment, stdout=subprocess.DEVNULL)
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        seconds = time.monotonic() - started
        if process.returncode:
            raise UserError(f"stage clean failed on {count} rows; its message is above.")
        report = json.loads((folder / "metrics/clean.json").read_text())
    return {
        "rows": count,
        "megabytes": round(size / 1e6),
        "seconds": round(seconds, 1),
        "processor_seconds": round(usage.ru_utime + usage.ru_stime, 1),
        "peak_megabytes": round(usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024) / 1e6),
        "kept": report["kept"],
        "reasons": {reason: number for reason, number in report["reasons"].items() if number},
    }


def measure_clean(counts: Sequence[int]) -> dict[str, Any]:
    """The section `clean`: one of `runs` for each count of rows."""
    runs = []
    for count in counts:
        runs.append(measure_run(count))
        print(json.dumps(runs[-1]), file=sys.stderr, flush=True)
    return {"runs": runs}
