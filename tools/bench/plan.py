"""What the compared processes share: the folder that says what to train on, and the clock that times them."""

import os
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import TrainerCallback

from distill.core.files import read_json, write_json
from distill.modeling.runtime import device
from distill.training.throughput import peak_memory

PLAN, ROWS, RESULT = "plan.json", "rows.jsonl", "result.json"
STATUS = Path("/proc/self/status")
TEACHER, FULL = "teacher", "student"  # folders: the teacher, and its layers with its whole vocabulary


@dataclass(frozen=True)
class Plan:
    """Steps of training, of which the first `warmup` are not timed, and the rows of each step one after the other."""

    steps: int
    warmup: int
    order: list[int]  # places in data/weighted/train.jsonl, batch after batch


def write(folder: Path, plan: Plan) -> None:
    """Writes the plan into its folder."""
    write_json(folder / PLAN, asdict(plan))


def read(folder: Path) -> Plan:
    """The plan of the folder."""
    return Plan(**read_json(folder / PLAN, "python -m tools.bench train"))


class Clock(TrainerCallback):
    """Times the steps after the plan's warm-up; what happens after the last step is outside."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.started = (0.0, 0.0)
        self.result: dict[str, Any] = {}

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        now = (time.perf_counter(), processor_seconds())
        if state.global_step == self.plan.warmup:
            self.started = now
        if state.global_step == self.plan.steps:
            names = ("seconds", "processor_seconds")
            self.result = dict(zip(names, (b - a for a, b in zip(self.started, now, strict=True)), strict=True))
            self.result["peak_gb"] = peak_gb()


def processor_seconds() -> float:
    """Seconds of processor that this process has used, all threads together."""
    used = os.times()
    return used.user + used.system


def peak_gb() -> float:
    """The most memory that this process has held, in GB: resident pages (VmHWM), or the GPU's tensors where one is.

    Linux keeps VmHWM from the start of the program, where `ru_maxrss` also counts the process that started it.
    """
    if torch.cuda.is_available() or not STATUS.exists():
        return peak_memory(device()) / 1e9
    line = next(line for line in STATUS.read_text(encoding="utf-8").splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) * 1024 / 1e9
