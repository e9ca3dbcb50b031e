"""Time and peak memory of `clean` on made-up rows: `python -m tools.bench.clean 100000 1000000`.

They become the section `clean` of metrics/bench.json, with one of `runs` for each count.
"""

import argparse
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from distill.core.files import write_rows
from tools.bench.results import write_section

ROOT = Path(__file__).parents[2]
ROWS_PER_TOPIC = 50
TOKENS = 64  # log-probabilities of a row
EQUAL, ALIKE, LOOPS, LEAKS = 0.03, 0.03, 0.02, 0.01  # shares of rows that are made to be dropped


def rows(count: int, seed: int = 0) -> Iterator[dict[str, Any]]:
    """Rows as `generate` writes them, of Zipf's words; some repeat an earlier one, loop, or hold another's prompt."""
    dice = random.Random(seed)
    vocabulary = [f"{dice.choice('bdfgklmnprst')}{dice.choice('aeiou')}{number:x}" for number in range(20_000)]
    likely = [1 / rank for rank in range(1, len(vocabulary) + 1)]
    stream = dice.choices(vocabulary, likely, k=1_000_000)

    def text(low: int, high: int) -> list[str]:
        start = dice.randrange(len(stream) - high)
        drawn = stream[start : start + dice.randint(low, high)]
        return [word if dice.random() < 0.8 else dice.choice(vocabulary) for word in drawn]

    recent: list[tuple[list[str], list[str]]] = []
    for number in range(count):
        question, answer = text(15, 40), text(20, 120)
        kind = dice.random()
        if recent and kind < EQUAL:
            answer = dice.choice(recent)[1]
        elif recent and kind < EQUAL + ALIKE:
            answer = list(dice.choice(recent)[1])
            answer[-1] = "other"
        elif kind < EQUAL + ALIKE + LOOPS:
            answer = answer[:4] * 20
        elif recent and kind < EQUAL + ALIKE + LOOPS + LEAKS:
            answer = [*answer[:20], *dice.choice(recent)[0]]
        if len(recent) < 1000:
            recent.append((question, answer))
        else:
            recent[dice.randrange(1000)] = (question, answer)
        prompt = f"topic-{number // ROWS_PER_TOPIC:07d}/{number % ROWS_PER_TOPIC:02d}"
        yield {
            "id": f"{prompt}@made-up",
            "prompt_id": prompt,
            "topic": prompt.partition("/")[0],
            "teacher": "made-up",
            "sample": 0,
            "messages": [{"role": "user", "content": " ".join(question)}],
            "response": " ".join(answer),
            "finish_reason": "stop",
            "logprobs": [-round(dice.random(), 4) for _ in range(TOKENS)],
            "entropies": None,
            "margins": None,
            "judge_score": None,
            "fused_from": [],
            "degraded": [],
            "usage": {"prompt_tokens": len(question), "completion_tokens": TOKENS},
            "error": None,
        }


def measured(count: int) -> dict[str, Any]:
    """Seconds and peak memory of the stage's own command on so many rows, and what it counted."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        shutil.copy(ROOT / "params.yaml", folder)
        path = folder / "data/raw/responses.jsonl"
        write_rows(path, rows(count))
        size = path.stat().st_size
        started = time.monotonic()
        command = [sys.executable, "-m", "stages.clean"]
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        process = subprocess.Popen(command, cwd=folder, env=environment, stdout=subprocess.DEVNULL)
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        seconds = time.monotonic() - started
        if process.returncode:
            sys.exit(process.returncode)
        found = json.loads((folder / "metrics/clean.json").read_text())
    return {
        "rows": count,
        "megabytes": round(size / 1e6),
        "seconds": round(seconds, 1),
        "processor_seconds": round(usage.ru_utime + usage.ru_stime, 1),
        "peak_megabytes": round(usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024) / 1e6),
        "kept": found["kept"],
        "reasons": {reason: number for reason, number in found["reasons"].items() if number},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("rows", type=int, nargs="+", help="how many rows, one measurement each")
    runs = []
    for count in parser.parse_args().rows:
        runs.append(measured(count))
        print(json.dumps(runs[-1]), flush=True)
        write_section("clean", {"runs": runs})


if __name__ == "__main__":
    main()
