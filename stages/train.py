"""Makes one student: `python -m stages.train init`, or `sft` or `distilled` with a training seed after it.

Reads  data/weighted/train.jsonl, data/weighted/targets, data/clean/validation.jsonl,
       params seed (of init alone), runtime, teachers, generate.class_labels, weight.targets, weight.layers, train
Writes models/<run>, metrics/train/<run>.json, metrics/train/<run>_log.csv, and while it trains DVCLive's files
       metrics/live/<run>/metrics.json, metrics/live/<run>/plots/metrics;
       checkpoints to resume from in .distill/checkpoints, metrics/environment/{init,train@<run>}.json
"""

import argparse
import math
import os
import shutil
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from distill.cards import model_card
from distill.core.code import imported_code
from distill.core.errors import run_main
from distill.core.files import atomic_file, atomic_folder, file_hash, read_rows, value_hash, write_json
from distill.core.home import home
from distill.modeling import class_labels as closed_set
from distill.modeling import environment, loading, runtime
from distill.modeling.chat import encode
from distill.modeling.scoring import negative_log_likelihood
from distill.params import loading as params_file
from distill.params.schema import Params
from distill.params.students import TeacherStudent
from distill.params.train import Distilled, Variant
from distill.students import build, lora
from distill.students.runs import TRAINED, Run, weights_hash
from distill.targets import store
from distill.training import class_labels, fit, phases, trackers
from distill.training import data as teaching
from distill.training.data import Lessons, Rows
from distill.training.dataset import samples

TRAIN = Path("data/weighted/train.jsonl")
TARGETS = Path("data/weighted/targets")
VALIDATION = Path("data/clean/validation.jsonl")
LIVE = Path("metrics/live")
VALIDATION_TOKENS = 4096  # padded tokens of one validation batch


def untrained_student(params: Params, choices: list[TeacherStudent], rows: Rows, validation: Rows) -> build.Untrained:
    """The first student before training, its tokenizer, and what there is to report of them.

    `choices` is what each rung keeps of the one above, the first of the teacher and the last the student.
    """
    choice, wanted = params.train.student, params.weight.targets
    if choice.source == "pretrained":
        return build.pretrained(choice)
    spec = teaching.teacher_of(params.teachers, choice.teacher)
    theirs, stored, expected = None, None, None
    if wanted is not None:
        teacher = teaching.teacher_of(params.teachers, wanted.teacher)
        dtype = runtime.compute_dtype(params.runtime.dtype)
        theirs, stored = teaching.stored_targets(TARGETS, teacher, wanted, rows, dtype)
        expected = store.read_expected(TARGETS) if wanted.kind in store.WHOLE else None
    rung = None if params.train.ladder is None else "rung-1"
    return build.cut_from(spec, choices[0], rows, validation, theirs, stored, expected, rung)


def lessons(
    step: phases.Step,
    network: Any,
    teacher: Path | None,
    seed: int,
    params: Params,
    settings: Variant,
    rows: Rows,
    tokenizer: Any,
) -> Lessons:
    """What a student learns from: targets of the teacher, or the student in the folder `teacher`.

    Either is there only for a loss that needs it.
    """
    wanted, max_length = params.weight.targets, params.train.schedule.max_length
    if params.generate.class_labels is not None:
        return Lessons(class_labels.samples(rows, tokenizer, params.generate.class_labels, max_length))
    layer_loss = None
    if isinstance(settings, Distilled) and not step.is_rung:  # its pairs are numbered by the student's own layers
        layer_loss = settings.layer_loss
    if wanted is None or not (settings.needs_teacher or layer_loss):
        return Lessons(samples(rows, tokenizer, max_length))
    dtype = runtime.compute_dtype(params.runtime.dtype)
    if teacher is not None:
        return teaching.of_a_student(rows, network, tokenizer, max_length, teacher, wanted, dtype, seed)
    spec = teaching.teacher_of(params.teachers, wanted.teacher)
    given = (rows, network, tokenizer, max_length, spec, wanted, TARGETS, dtype, seed)
    return teaching.lessons(*given, layer_loss, params.weight.layers or [])


def validation_loss(network: Any, validation: Rows, tokenizer: Any, teacher_tokens: int, dtype: torch.dtype) -> float:
    """Nats per token of the teacher for the validation responses: the same measure for every student."""
    examples = [encode(tokenizer, row) for row in validation]
    device = network.device
    with torch.autocast(device.type, dtype=dtype, enabled=dtype != torch.float32):
        return negative_log_likelihood(network, examples, VALIDATION_TOKENS) / teacher_tokens


def label_loss(network: Any, validation: Rows, tokenizer: Any, labels: list[str], dtype: torch.dtype) -> float:
    """Nats per row of the teacher's labels within the set, for the validation rows."""
    messages, device = [row["messages"] for row in validation], network.device
    with torch.autocast(device.type, dtype=dtype, enabled=dtype != torch.float32):
        _, found = closed_set.log_probs(network, tokenizer, messages, labels, VALIDATION_TOKENS)
    nats = [-own[labels.index(row["response"])] for own, row in zip(found.tolist(), validation, strict=True)]
    return sum(nats) / len(nats)


def checkpoint_folder(params: Params, this: Run) -> Path:
    """Where this run's checkpoints are: a run that differs in seed, params, data, code or torch has another folder."""
    data = [TRAIN, VALIDATION, TARGETS / store.MANIFEST, TARGETS / store.LAYERS / store.MANIFEST]
    key = {
        "run": this.name,
        "params": [params.train.model_dump(exclude={"report_to"}), params.runtime.model_dump()],
        "targets": params.weight.targets and params.weight.targets.model_dump(),
        "labels": params.generate.class_labels,
        "data": [file_hash(path) for path in data if path.exists()],
        "code": [file_hash(path) for path in imported_code(Path(__file__))],
        "torch": torch.__version__,
    }
    return home(os.environ, Path.cwd()) / "checkpoints" / f"{this.name}-{value_hash(key)[:16]}"


def settings_of(params: Params, this: Run) -> Variant:
    """The section of params of a variant that is trained."""
    return params.train.sft if this.variant == "sft" else params.train.distilled


def log_table(log: list[dict[str, Any]], first: float) -> pd.DataFrame:
    """The losses as rows of step, epoch, split (train, validation), loss and training, of which a course has several.

    A training loss is of the variant's own kind.
    """
    rows = [(0, 0.0, "validation", first, "untrained")]
    for entry in log:
        for key, split in (("loss", "train"), ("validation_loss", "validation")):
            if key in entry:
                rows.append((entry["step"], entry["epoch"], split, entry[key], entry["training"]))
    table = pd.DataFrame(rows, columns=["step", "epoch", "split", "loss", "training"])
    return table.round({"epoch": 3, "loss": 4})


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("variant", choices=("init", *TRAINED))
    parser.add_argument("seed", type=int, nargs="?", help="of the training: needed by all but init, which has none")
    given = parser.parse_args()
    if (given.variant == "init") != (given.seed is None):
        parser.error("sft and distilled need a training seed, one of `seeds` in params.yaml, and init takes none")
    this = Run(given.variant, given.seed)
    params = params_file.load()
    trackers.require(params.train.report_to)
    tracked = home(os.environ, Path.cwd()) / "tracking"
    tracked.mkdir(parents=True, exist_ok=True)
    for name, value in trackers.offline(tracked.absolute()).items():
        os.environ.setdefault(name, value)
    runtime.prepare(params.runtime.threads, params.seed if this.seed is None else this.seed)
    rows, validation = list(read_rows(TRAIN, "stage weight")), list(read_rows(VALIDATION, "stage clean"))
    choices = (
        [] if params.train.student.source == "pretrained" else phases.cuts(params.train.student, params.train.ladder)
    )
    network, tokenizer, report = untrained_student(params, choices, rows, validation)
    teacher_tokens = sum(len(row["logprobs"] or row["response"].split()) for row in validation)
    dtype = runtime.compute_dtype(params.runtime.dtype)
    measured_as = (
        partial(validation_loss, teacher_tokens=teacher_tokens)
        if params.generate.class_labels is None
        else partial(label_loss, labels=params.generate.class_labels)
    )
    measure = partial(measured_as, validation=validation, tokenizer=tokenizer, dtype=dtype)
    folder = checkpoint_folder(params, this)
    adapter = params.train.student.adapter if params.train.student.source == "pretrained" else None
    done: list[phases.Trained] = []
    if this.seed is None:
        network, report = build.cut_down(network, tokenizer, choices[1:], rows, report)
        first = loss = measure(network)
        print(f"{loading.parameter_count(network):,} parameters, validation perplexity {math.exp(first):.4g} untrained")
    else:
        settings = settings_of(params, this)
        training = fit.Training(
            name=this.name,
            seed=this.seed,
            schedule=params.train.schedule,
            settings=settings,
            adapter=adapter,
            dtype=dtype,
            checkpoints=folder,
            curves=LIVE / this.name,
            compile=params.train.compile,
            report_to=params.train.report_to,
            measure=measure,
        )
        plan = phases.steps(choices, params.train.ladder, params.train.rounds, params.train.schedule.epochs)
        decay = params.train.rounds.average_decay if params.train.rounds and settings.needs_teacher else None
        teach = partial(lessons, params=params, settings=settings, rows=rows, tokenizer=tokenizer)
        network, done, best = phases.run(plan, network, report.get("layers"), tokenizer, rows, training, teach, decay)
        report |= {"layers": best.layers} if best.layers else {}
        report |= {"loss": settings.loss} | phases.report(done, best)
        first, loss = done[0].first, best.loss
    table = log_table(phases.joined(done), first)
    report |= {"parameters": loading.parameter_count(network), "validation_loss": round(loss, 4)}
    if adapter is not None and this.seed is not None:
        report |= lora.report(network, adapter)
        if adapter.quantization is not None:  # what was trained is not quite what is kept
            report |= {"merged_validation_loss": round(measure(network.eval()), 4)}
    save_dtype = getattr(torch, params.train.save_dtype)
    with atomic_folder(this.folder) as target:
        loading.save(network.to(save_dtype), tokenizer, target)
        for one in phases.rungs(done):
            rung, _ = loading.load(str(phases.folder_of(folder, one.name)), save_dtype)
            loading.save(rung, tokenizer, target / one.name)
        model_card.write(target, model_card.lineage(params, this, rows, [TRAIN]), report)
    with atomic_file(this.record.with_name(f"{this.name}_log.csv")) as target:
        table.to_csv(target, index=False, lineterminator="\n")
    report |= {"weights": weights_hash(this.folder)}
    write_json(this.record, {"variant": this.variant, "seed": this.seed} | report)
    environment.record(this.stage, params.runtime)
    shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    run_main(main)
