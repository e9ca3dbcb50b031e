"""One run of our training in a process of its own: `python -m tools.bench.ours FOLDER NAME STUDENT KIND`.

It trains by `distill.training.fit`, as stage `train` does, with stored targets or the teacher in the step (KIND:
stored, online). All weights are 1, since TRL has none.
"""

import sys
from pathlib import Path

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from distill.core.errors import run_main
from distill.core.files import read_rows, write_json
from distill.modeling import loading, runtime
from distill.params.loading import load_params
from distill.params.schema import Params
from distill.students.build import StoredTargets
from distill.targets import store
from distill.training import throughput
from distill.training.data import TrainingData, online_teacher
from distill.training.dataset import TeacherTargets, encode_samples
from distill.training.fit import FitConfig, fit, training_flops
from tools.bench import plan as plans
from tools.held_out_kl import FORWARD_KL

TRAIN, TARGETS = Path("data/weighted/train.jsonl"), Path("data/targets")


def load_data(
    params: Params, plan: plans.Plan, student: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, teacher: Path | None
) -> TrainingData:
    """The plan's samples in its order, with stored targets or, from the folder `teacher`, an online teacher."""
    rows = list(read_rows(TRAIN, "stage weight"))
    dtype = runtime.compute_dtype(params.runtime.dtype)
    targets = StoredTargets.find(TARGETS, params.targets, params.teachers, dtype)
    assert targets is not None, "the command has refused params without targets"
    spec = targets.teacher
    teacher_tokenizer = loading.load_teacher_tokenizer(spec)
    chosen = [rows[index] | {"weight": 1.0} for index in plan.order]
    stored = None
    if teacher is None:
        stored = dict(store.read_targets(TARGETS, targets.source(teacher_tokenizer, rows)))
    samples = encode_samples(
        chosen, tokenizer, params.train.optimization.max_length, TeacherTargets(teacher_tokenizer, stored, {})
    )
    if teacher is None:
        return TrainingData(samples)
    model, _ = loading.load_model(str(teacher), dtype)
    return TrainingData(samples, online_teacher(model, teacher_tokenizer, student, tokenizer))


def fit_config(params: Params, plan: plans.Plan, folder: Path) -> FitConfig:
    """The training of params.yaml for the plan's steps, without checkpoints and validation."""
    interval = params.train.optimization.logging_steps
    optimization = params.train.optimization.model_copy(
        update={"num_train_epochs": 1, "save_steps": (plan.steps // interval + 1) * interval}
    )
    return FitConfig(
        name=folder.name,
        seed=params.data_seed,
        optimization=optimization,
        loss=FORWARD_KL,
        adapter=None,
        dtype=runtime.compute_dtype(params.runtime.dtype),
        checkpoints=folder,
        curves=folder,
        compile=params.train.compile,
        report_to=None,
        validation_loss=lambda _: 0.0,
    )


def main() -> None:
    folder, name, student, kind = Path(sys.argv[1]), *sys.argv[2:]
    plan, params = plans.read(folder), load_params()
    runtime.prepare(params.runtime.threads, params.data_seed)
    model, tokenizer = loading.load_model(student, torch.float32)
    data = load_data(params, plan, model, tokenizer, folder / plans.TEACHER if kind == "online" else None)
    clock, config = plans.Clock(plan), fit_config(params, plan, folder / name)
    fit(model, data, config, [clock], order=range(len(data.samples)))
    timed = data.samples[plan.warmup * config.step_size :]
    rate = training_flops(model, timed, config.step_size) / clock.result["seconds"]
    loading.save_model(model, tokenizer, folder / name)
    mfu = rate / throughput.matmul_rate(config.dtype, model.device)
    write_json(folder / name / plans.RESULT, clock.result | {"mfu": mfu})


if __name__ == "__main__":
    run_main(main)
