"""Train one student: `python -m stages.train sft SEED` or `distilled SEED`, with a seed of `training_seeds`.

DVC gives no SEED: it names the stage, `sft@20`, in DVC_STAGE, so that no value of params.yaml reaches a shell.

Reads  data/weighted/train.jsonl, data/targets, data/clean/validation.jsonl, models/init, metrics/init.json,
       params runtime, teachers, generate.class_labels, generate.prompts, targets, init, train
Writes models/<run>, metrics/train/<run>.json, metrics/train/<run>_log.csv, and while it trains DVCLive's files
       metrics/live/<run>/metrics.json, metrics/live/<run>/plots/metrics;
       checkpoints to resume from in .distill/checkpoints, metrics/environment/{sft,distilled}@<seed>.json
"""

import argparse
import os
import shutil
from pathlib import Path

import torch
import transformers
from transformers import PreTrainedModel

from distill.cards import model_card
from distill.cards.provenance import provenance
from distill.core.code import imported_code
from distill.core.errors import run_main
from distill.core.files import Row, atomic_file, atomic_folder, file_hash, read_json, read_rows, write_json
from distill.core.home import home
from distill.losses.logit_loss import LossSettings
from distill.modeling import environment, runtime
from distill.params.loading import load_params
from distill.params.schema import Params
from distill.params.train import Distilled
from distill.students.build import StoredTargets, Student, load_initial, pruning_plan
from distill.students.runs import TRAINED, Run, require_model, weights_hash
from distill.targets import store
from distill.training import phases, plan, trackers
from distill.training.checkpoints import checkpoint_folder
from distill.training.data import SFT, TrainingContext, TrainingData, load_training_data, require_short_rows
from distill.training.fit import FitConfig
from distill.training.outcome import loss_table, make_record, save_students
from distill.training.validation import Validation

TRAIN, VALIDATION = Path("data/weighted/train.jsonl"), Path("data/clean/validation.jsonl")
TARGETS, LIVE = Path("data/targets"), Path("metrics/live")
INIT = Run("init", None)


def parse_run() -> Run:
    """The run that the command, or DVC, names."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("variant", choices=TRAINED)
    parser.add_argument("seed", type=int, nargs="?", help="of the training, one of training_seeds in params.yaml")
    arguments = parser.parse_args()
    if arguments.seed is None:
        return Run.of_stage(arguments.variant, os.environ.get("DVC_STAGE", ""))
    return Run(arguments.variant, arguments.seed)


def run_key(params: Params) -> Row:
    """What the checkpoints of a run depend on: params, data, code and packages."""
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
        "packages": [torch.__version__, transformers.__version__],
    }


def prepare_trackers(report_to: str | None) -> Path:
    """The folder of journals and checkpoints; every tracker writes below it and calls no server."""
    trackers.require(report_to)
    folder = home(os.environ, Path.cwd())
    (folder / "tracking").mkdir(parents=True, exist_ok=True)
    for name, value in trackers.offline((folder / "tracking").absolute()).items():
        os.environ.setdefault(name, value)
    return folder


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
    sizes = pruning_plan(params.init, params.train.progressive) if params.init.source == "pruned" else []
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
    require_short_rows(context)

    def load_data(phase: plan.Phase, model: PreTrainedModel, teacher: Path | None, seed: int) -> TrainingData:
        return load_training_data(context, model, teacher, phase.is_final, seed)

    ema_decay = generations.ema_decay if generations and losses.loss.needs_teacher else None
    return phases.run_phases(plan.plan_phases(sizes, params.train), student, rows, config, load_data, ema_decay)


def main() -> None:
    this, params = parse_run(), load_params()
    folder = prepare_trackers(params.train.report_to)
    runtime.prepare(params.runtime.threads, this.seed or 0)
    require_model(INIT)
    rows, held_out = list(read_rows(TRAIN, "stage weight")), list(read_rows(VALIDATION, "stage clean"))
    student = load_initial(INIT.folder, read_json(INIT.record, "stage init"), params.train.progressive)
    dtype = runtime.compute_dtype(params.runtime.dtype)
    validation = Validation.of(held_out, student.tokenizer, params.generate.class_labels, dtype)
    losses = SFT if this.variant == "sft" else params.train.distilled
    checkpoints = checkpoint_folder(folder, this.name, run_key(params))
    config = fit_config(this, params, checkpoints, losses, validation)
    trained = train(params, student, rows, losses, config)
    record = make_record(student, trained, config, validation)
    with atomic_folder(this.folder) as target:
        save_students(target, student, trained, checkpoints, getattr(torch, params.train.save_dtype))
        model_card.write(target, provenance(params, this, rows, [TRAIN]), record)
    with atomic_file(this.record.with_name(f"{this.name}_log.csv")) as target:
        loss_table(trained).to_csv(target, index=False, lineterminator="\n")
    weights = {"weights": weights_hash(this.folder)}
    write_json(this.record, {"variant": this.variant, "seed": this.seed} | record | weights)
    environment.record(this.stage, params.runtime)
    shutil.rmtree(checkpoints, ignore_errors=True)


if __name__ == "__main__":
    run_main(main, os.environ)
