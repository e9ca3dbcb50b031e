"""Train one student: `python -m stages.train sft SEED` or `distilled SEED`, with a seed of `training_seeds`.

Reads  data/weighted/train.jsonl, data/targets, data/clean/validation.jsonl, models/init, metrics/init.json,
       params runtime, teachers, generate.class_labels, targets, init, train
Writes models/<run>, metrics/train/<run>.json, metrics/train/<run>_log.csv, and while it trains DVCLive's files
       metrics/live/<run>/metrics.json, metrics/live/<run>/plots/metrics;
       checkpoints to resume from in .distill/checkpoints, metrics/environment/{sft,distilled}@<seed>.json
"""

import argparse
import os
import shutil
from dataclasses import replace
from pathlib import Path

import pandas as pd
import torch
from transformers import PreTrainedModel

from distill.cards import model_card
from distill.cards.provenance import provenance
from distill.core.code import imported_code
from distill.core.errors import run_main
from distill.core.files import Row, atomic_file, atomic_folder, file_hash, read_json, read_rows, write_json
from distill.core.home import home
from distill.losses.logit_loss import LossSettings
from distill.modeling import environment, loading, runtime
from distill.params.loading import load_params
from distill.params.schema import Params
from distill.params.train import Distilled
from distill.students import lora
from distill.students.build import INTERMEDIATE, StoredTargets, Student, pruning_plan
from distill.students.runs import TRAINED, Run, weights_hash
from distill.targets import store
from distill.training import phases, trackers
from distill.training.checkpoints import checkpoint_folder
from distill.training.data import SFT, TrainingContext, TrainingData, load_training_data
from distill.training.fit import FitConfig
from distill.training.validation import Validation

TRAIN, VALIDATION = Path("data/weighted/train.jsonl"), Path("data/clean/validation.jsonl")
TARGETS, LIVE = Path("data/targets"), Path("metrics/live")
INIT = Run("init", None)
# of the record of init, what a trained student's has too
DESCRIBED = ("source", "layers", "intermediate_size", "num_key_value_heads", "vocab_size", "validation_coverage")
# of the record of init, what a trained student's has too
DESCRIBED = ("source", "layers", "intermediate_size", "num_key_value_heads", "vocab_size", "validation_coverage")


def parse_run() -> Run:
    """The run that the command names."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("variant", choices=TRAINED)
    parser.add_argument("seed", type=int, help="of the training, one of training_seeds in params.yaml")
    arguments = parser.parse_args()
    return Run(arguments.variant, arguments.seed)


def load_initial_student(params: Params) -> Student:
    """The student that training starts from: the initial one, or the first intermediate one."""
    record = read_json(INIT.record, "stage init")
    folder = INIT.folder / f"{INTERMEDIATE}1" if params.train.progressive else INIT.folder
    model, tokenizer = loading.load_model(str(folder), torch.float32)
    described = {name: value for name, value in record.items() if name in DESCRIBED}
    layers = {"layers": record["start_layers"]} if params.train.progressive else {}
    return Student(model, tokenizer, described | layers)


def run_key(params: Params) -> Row:
    """What the checkpoints of a run depend on: params, data, code and torch."""
    manifests = [TARGETS / store.MANIFEST, TARGETS / store.LAYERS / store.MANIFEST]
    return {
        "params": [
            params.train.model_dump(exclude={"report_to"}),
            params.init.model_dump(),
            params.runtime.model_dump(),
        ],
        "targets": params.targets and params.targets.model_dump(),
        "class_labels": params.generate.class_labels,
        "data": [file_hash(path) for path in (TRAIN, VALIDATION, INIT.record, *manifests) if path.exists()],
        "code": [file_hash(path) for path in imported_code(Path(__file__))],
        "torch": torch.__version__,
    }


def prepare_trackers(report_to: str | None) -> Path:
    """The folder of journals and checkpoints; every tracker writes below it and calls no server."""
    trackers.require(report_to)
    folder = home(os.environ, Path.cwd())
    (folder / "tracking").mkdir(parents=True, exist_ok=True)
    for name, value in trackers.offline((folder / "tracking").absolute()).items():
        os.environ.setdefault(name, value)
    return folder


def log_table(trained: phases.Trained) -> pd.DataFrame:
    """The losses as rows of step, epoch, split (train, validation), loss and phase.

    A training loss is of the variant's own kind.
    """
    rows = [(0, 0.0, "validation", trained.phases[0].first, "untrained")]
    for entry in phases.joined_logs(trained.phases):
        for key, split in (("loss", "train"), ("validation_loss", "validation")):
            if key in entry:
                rows.append((entry["step"], entry["epoch"], split, entry[key], entry["phase"]))
    table = pd.DataFrame(rows, columns=["step", "epoch", "split", "loss", "phase"])
    return table.round({"epoch": 3, "loss": 4})


def make_record(student: Student, trained: phases.Trained, config: FitConfig, validation: Validation) -> Row:
    """metrics/train/<run>.json, without run and weights."""
    record = student.record | ({"layers": trained.best.layers} if trained.best.layers else {})
    record |= {"loss": config.loss.kind} | phases.report(trained)
    record |= {
        "parameters": loading.parameter_count(trained.model),
        "validation_loss": round(trained.best.loss, 4),
        "validation_unit": validation.unit,
    }
    if config.adapter is not None:
        record |= lora.adapter_record(trained.model, config.adapter)
        if config.adapter.quantization is not None:  # the merged weights differ slightly from the trained ones
            record |= {"merged_validation_loss": round(validation.loss(trained.model.eval()), 4)}
    return record


def fit_config(this: Run, params: Params, checkpoints: Path, losses: Distilled, validation: Validation) -> FitConfig:
    """How the run is trained."""
    return FitConfig(
        name=this.name,
        seed=this.seed or 0,
        optimization=params.train.optimization,
        loss=LossSettings.from_params(losses.loss),
        adapter=params.train.adapter,
        dtype=validation.dtype,
        checkpoints=checkpoints,
        curves=LIVE / this.name,
        compile=params.train.compile,
        report_to=params.train.report_to,
        validation_loss=validation.loss,
    )


def train(params: Params, student: Student, rows: list[Row], losses: Distilled, config: FitConfig) -> phases.Trained:
    """Runs the phases that params plan."""
    plan = pruning_plan(params.init, params.train.progressive) if params.init.source == "pruned" else []
    generations = params.train.self_distillation
    context = TrainingContext(
        rows=rows,
        tokenizer=student.tokenizer,
        max_length=params.train.optimization.max_length,
        dtype=config.dtype,
        class_labels=params.generate.class_labels,
        targets=StoredTargets.find(TARGETS, params.targets, params.teachers, config.dtype),
        losses=losses,
    )

    def load_data(phase: phases.Phase, model: PreTrainedModel, teacher: Path | None, seed: int) -> TrainingData:
        return load_training_data(context, model, teacher, phase.is_final, seed)

    ema_decay = generations.ema_decay if generations and losses.loss.needs_teacher else None
    planned = phases.plan_phases(plan, params.train)
    return phases.run_phases(planned, student, rows, config, load_data, ema_decay)


def write_student(this: Run, student: Student, trained: phases.Trained, config: FitConfig, params: Params) -> None:
    """Writes the trained model's folder, with the intermediate students in folders of their own."""
    dtype = getattr(torch, params.train.save_dtype)
    with atomic_folder(this.folder) as target:
        loading.save_model(trained.model.to(dtype), student.tokenizer, target)
        for phase in phases.intermediate_students(trained.phases):
            model, _ = loading.load_model(str(phases.phase_folder(config.checkpoints, phase.name)), dtype)
            loading.save_model(model, student.tokenizer, target / phase.name)
        rows = list(read_rows(TRAIN, "stage weight"))
        model_card.write(target, provenance(params, this, rows, [TRAIN]), student.record)


def main() -> None:
    this, params = parse_run(), load_params()
    folder = prepare_trackers(params.train.report_to)
    runtime.prepare(params.runtime.threads, this.seed or 0)
    rows, held_out = list(read_rows(TRAIN, "stage weight")), list(read_rows(VALIDATION, "stage clean"))
    student, dtype = load_initial_student(params), runtime.compute_dtype(params.runtime.dtype)
    validation = Validation.of(held_out, student.tokenizer, params.generate.class_labels, dtype)
    losses = SFT if this.variant == "sft" else params.train.distilled
    checkpoints = checkpoint_folder(folder, this.name, run_key(params))
    config = fit_config(this, params, checkpoints, losses, validation)
    trained = train(params, student, rows, losses, config)
    record = make_record(student, trained, config, validation)
    write_student(this, replace(student, record=record), trained, config, params)
    with atomic_file(this.record.with_name(f"{this.name}_log.csv")) as target:
        log_table(trained).to_csv(target, index=False, lineterminator="\n")
    weights = {"weights": weights_hash(this.folder)}
    write_json(this.record, {"variant": this.variant, "seed": this.seed} | record | weights)
    environment.record(this.stage, params.runtime)
    shutil.rmtree(checkpoints, ignore_errors=True)


if __name__ == "__main__":
    run_main(main)
