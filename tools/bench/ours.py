"""One run of our training in a process of its own: `python -m tools.bench.ours FOLDER NAME STUDENT KIND`.

As stage `train` does it, with stored targets or the teacher in the step (KIND: stored, online); all weights are 1,
since TRL has none.
"""

import sys
from pathlib import Path
from typing import Any

import torch

from distill.core.errors import run_main
from distill.core.files import read_rows, write_json
from distill.modeling import loading, runtime
from distill.params import loading as params_file
from distill.params.schema import Params
from distill.targets import store, tokenizers
from distill.training import fit, throughput, tied_embeddings
from distill.training.dataset import Sample, samples
from distill.training.online_teacher import LiveTeacher
from distill.training.sampler import Ordered
from distill.training.trainer import DistillTrainer, arguments
from tools.bench import plan as plans
from tools.held_out_kl import LOSS

TRAIN = Path("data/weighted/train.jsonl")
TARGETS = Path("data/weighted/targets")


def data(params: Params, plan: plans.Plan, student: Any, teacher: Any, online: bool) -> list[Sample]:
    """The plan's samples in its order, in the student's tokens, with stored targets or what the teacher is asked."""
    wanted = params.weight.targets
    assert wanted is not None
    rows = list(read_rows(TRAIN, "stage weight"))
    chosen = [rows[place] | {"weight": 1.0} for place in plan.order]
    stored = None
    if not online:
        spec = next(one for one in params.teachers if one.name == wanted.teacher and one.kind == "local")
        dtype = str(runtime.compute_dtype(params.runtime.dtype)).removeprefix("torch.")
        stored = store.read(TARGETS, store.source(spec, teacher, rows, dtype, wanted))
    return samples(chosen, student, params.train.schedule.max_length, teacher, stored)


def main() -> None:
    folder, name, student, kind = Path(sys.argv[1]), *sys.argv[2:]
    plan, params = plans.read(folder), params_file.load()
    runtime.prepare(params.runtime.threads, params.seed)
    dtype = runtime.compute_dtype(params.runtime.dtype)
    network, tokenizer = loading.load(student, torch.float32)
    if network.device.type == "cpu":  # as the stage
        network.set_attn_implementation("eager")
    whole = loading.load_tokenizer(str(folder / plans.TEACHER))
    teacher = None
    if kind == "online":
        model, _ = loading.load(str(folder / plans.TEACHER), dtype)
        width = network.get_output_embeddings().weight.shape[0]
        teacher = LiveTeacher(model, tokenizers.first_pieces(whole, tokenizer), width)
    items = data(params, plan, tokenizer, whole, kind == "online")
    clock = plans.Clock(plan)
    trainer = DistillTrainer(
        settings=LOSS,
        autocast=dtype,
        teacher=teacher,
        model=network,
        args=arguments(folder / name, params.train.schedule, plan.steps, params.seed),
        train_dataset=Ordered(items, range(len(items))),
        callbacks=[clock],
    )
    with tied_embeddings.gradients_in_place(network):
        trainer.train()
    size = len(items) // plan.steps
    achieved = fit.flops(network, items[plan.warmup * size :], size) / clock.result["seconds"]
    network.save_pretrained(folder / name)
    tokenizer.save_pretrained(folder / name)
    share = achieved / throughput.matmul_rate(dtype, network.device)
    write_json(folder / name / plans.RESULT, clock.result | {"mfu": share})


if __name__ == "__main__":
    run_main(main)
