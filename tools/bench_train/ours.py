"""One run of our training in a process of its own: `python -m tools.bench_train.ours FOLDER NAME STUDENT`.

As stage `train` does it, with stored targets; all weights are 1, since TRL has none.
"""

import sys
import time
from pathlib import Path
from typing import Any

import torch

from distill import losses, models, targets
from distill import params as params_file
from distill.dataset import Sample, collate, samples
from distill.errors import run
from distill.files import read_rows, write_json
from distill.logits import shared_columns
from distill.params import Params
from distill.trainer import DistillTrainer, Ordered, arguments
from tools.bench_train import plan as plans

TRAIN = Path("data/weighted/train.jsonl")
TARGETS = Path("data/weighted/targets")
LOSS = losses.Settings(loss="forward_kl", cross_entropy_share=0.0, temperature=1.0, beta=0.5, tail="bucket")
MATMUL, REPEATS = 2048, 8  # the size of the matrices whose product says what the hardware can do, and how often


def data(params: Params, plan: plans.Plan, student: Any) -> list[Sample]:
    """The plan's samples in its order, in the student's tokens, with the stored targets."""
    wanted = params.weight.targets
    assert wanted is not None
    spec = next(one for one in params.teachers if one.name == wanted.teacher and one.kind == "local")
    teacher = models.load_tokenizer(spec.model, spec.revision, spec.sha256)
    rows = list(read_rows(TRAIN, "stage weight"))
    dtype = str(models.compute_dtype(params.runtime.dtype)).removeprefix("torch.")
    stored = targets.read(TARGETS, targets.source(spec, teacher, rows, dtype, wanted.top_k))
    chosen = [rows[place] | {"weight": 1.0} for place in plan.order]
    return samples(chosen, student, params.train.schedule.max_length, teacher, stored)


def flops(network: Any, batches: list[list[Sample]]) -> float:
    """Model FLOPs of these steps: 6 N for a token, forward and backward (Kaplan et al. 2020).

    N is the layers' weights for each token of prompt and response, and the output embedding's for each token of a
    response. Padding does not count, a beginning that all rows of a batch share counts once, and attention's own
    products and the optimiser do not.
    """
    head = network.get_output_embeddings().weight.numel()
    layers = sum(part.numel() for part in network.get_decoder().layers.parameters())
    total = 0.0
    for batch in (collate(batch) for batch in batches):
        shared = shared_columns(batch["input_ids"], batch["predicts"])
        tokens = int(batch["attention_mask"].sum()) - shared * (len(batch["input_ids"]) - 1)
        total += 6.0 * (layers * tokens + head * len(batch["labels"]))
    return total


def matmul_rate(device: torch.device, dtype: torch.dtype) -> float:
    """FLOPs a second of the product of two square matrices, the best of several."""
    left, right = (torch.randn(MATMUL, MATMUL, device=device).to(dtype) for _ in range(2))
    best = float("inf")
    for _ in range(REPEATS):
        start = time.perf_counter()
        left @ right
        if device.type == "cuda":
            torch.cuda.synchronize()
        best = min(best, time.perf_counter() - start)
    return 2 * MATMUL**3 / best


def main() -> None:
    folder, name, student = Path(sys.argv[1]), sys.argv[2], sys.argv[3]
    plan, params = plans.read(folder), params_file.load()
    models.prepare(params.runtime.threads, params.seed)
    dtype = models.compute_dtype(params.runtime.dtype)
    network, tokenizer = models.load(student, torch.float32)
    if network.device.type == "cpu":
        network.set_attn_implementation("eager")  # as the stage
    items = data(params, plan, tokenizer)
    clock = plans.Clock(plan)
    DistillTrainer(
        settings=LOSS,
        autocast=dtype,
        model=network,
        args=arguments(folder / name, params.train.schedule, plan.steps, params.seed),
        train_dataset=Ordered(items, range(len(items))),
        callbacks=[clock],
    ).train()
    size = len(items) // plan.steps
    timed = [items[start : start + size] for start in range(plan.warmup * size, len(items), size)]
    rate = flops(network, timed) / clock.result["seconds"]
    network.save_pretrained(folder / name)
    tokenizer.save_pretrained(folder / name)
    write_json(folder / name / plans.RESULT, clock.result | {"mfu": rate / matmul_rate(network.device, dtype)})


if __name__ == "__main__":
    run(main)
