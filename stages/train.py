"""Makes one student: `python -m stages.train init`, or `sft` or `distilled` with a training seed after it.

Reads  data/weighted/train.jsonl, data/weighted/targets, data/clean/validation.jsonl,
       params seed (of init alone), runtime, teachers, weight.targets, weight.layers, train
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

from distill import environment, fitting, model_card, models, targets, teaching, tracking, untrained
from distill import params as params_file
from distill.chat import encode
from distill.dataset import samples
from distill.errors import UserError, run
from distill.files import file_hash, read_rows, value_hash, whole_file, whole_folder, write_json
from distill.home import home
from distill.params import Distilled, Params, Variant
from distill.runs import TRAINED, Run, weights_hash
from distill.scoring import negative_log_likelihood
from distill.teaching import Lessons, Rows

TRAIN = Path("data/weighted/train.jsonl")
TARGETS = Path("data/weighted/targets")
VALIDATION = Path("data/clean/validation.jsonl")
LIVE = Path("metrics/live")
CODE = [Path(__file__), *sorted(Path(fitting.__file__).parent.glob("*.py"))]
VALIDATION_TOKENS = 4096  # padded tokens of one validation batch


def untrained_student(params: Params, rows: Rows, validation: Rows) -> untrained.Untrained:
    """The student before training, its tokenizer, and what there is to report of them."""
    choice, wanted = params.train.student, params.weight.targets
    if choice.source == "pretrained":
        return untrained.pretrained(choice)
    spec = teaching.teacher_of(params.teachers, choice.teacher)
    stored, expected = None, None
    if wanted is not None:
        teacher = teaching.teacher_of(params.teachers, wanted.teacher)
        dtype = models.compute_dtype(params.runtime.dtype)
        _, stored = teaching.stored_targets(TARGETS, teacher, wanted, rows, dtype)
        expected = targets.read_expected(TARGETS) if wanted.kind in targets.WHOLE else None
    return untrained.cut_from(spec, choice, rows, validation, stored, expected)


def lessons(params: Params, settings: Variant, seed: int, rows: Rows, network: Any, tokenizer: Any) -> Lessons:
    """What a student of these settings learns from: the teacher is there only for a loss that needs it."""
    wanted, max_length = params.weight.targets, params.train.schedule.max_length
    layer_loss = settings.layer_loss if isinstance(settings, Distilled) else None
    of_text = settings.loss == "cross_entropy" or settings.cross_entropy_share == 1
    if wanted is None or (of_text and layer_loss is None):
        return Lessons(samples(rows, tokenizer, max_length))
    teacher = teaching.teacher_of(params.teachers, wanted.teacher)
    dtype = models.compute_dtype(params.runtime.dtype)
    given = (rows, network, tokenizer, max_length, teacher, wanted, TARGETS, dtype, seed)
    return teaching.lessons(*given, layer_loss, params.weight.layers or [])


def validation_loss(network: Any, validation: Rows, tokenizer: Any, teacher_tokens: int, dtype: torch.dtype) -> float:
    """Nats per token of the teacher for the validation responses: the same measure for every student."""
    examples = [encode(tokenizer, row) for row in validation]
    device = network.device
    with torch.autocast(device.type, dtype=dtype, enabled=dtype != torch.float32):
        return negative_log_likelihood(network, examples, VALIDATION_TOKENS) / teacher_tokens


def checkpoint_folder(params: Params, this: Run) -> Path:
    """Where this run's checkpoints are: a run that differs in seed, params, data, code or torch has another folder."""
    data = [TRAIN, VALIDATION, TARGETS / targets.MANIFEST, TARGETS / targets.LAYERS / targets.MANIFEST]
    key = {
        "run": this.name,
        "params": [params.train.model_dump(exclude={"report_to"}), params.runtime.model_dump()],
        "targets": params.weight.targets and params.weight.targets.model_dump(),
        "data": [file_hash(path) for path in data if path.exists()],
        "code": [file_hash(path) for path in CODE],
        "torch": torch.__version__,
    }
    return home(os.environ, Path.cwd()) / "checkpoints" / f"{this.name}-{value_hash(key)[:16]}"


def settings_of(params: Params, this: Run) -> Variant:
    """The section of params of a variant that is trained."""
    return params.train.sft if this.variant == "sft" else params.train.distilled


def log_table(log: list[dict[str, Any]], first: float, steps_per_epoch: float) -> pd.DataFrame:
    """The losses as rows of step, epoch, split (train, validation), loss; training's are of the variant's own kind."""
    rows = [(0, 0.0, "validation", first)]
    for entry in log:
        for key, split in (("loss", "train"), ("validation_loss", "validation")):
            if key in entry:
                rows.append((entry["step"], entry["step"] / steps_per_epoch, split, entry[key]))
    table = pd.DataFrame(rows, columns=["step", "epoch", "split", "loss"])
    return table.round({"epoch": 3, "loss": 4})


def save(network: Any, tokenizer: Any, folder: Path) -> None:
    """Writes a Hugging Face folder. Raises UserError where the disk is full."""
    try:
        network.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
    except Exception as error:  # of safetensors and tokenizers: theirs is no OSError and has no kind of its own
        if "os error 28" not in str(error):
            raise
        raise UserError(f"{folder} cannot be written ({error}). Free some space and run the same again.") from None


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("variant", choices=("init", *TRAINED))
    parser.add_argument("seed", type=int, nargs="?", help="of the training: needed by all but init, which has none")
    given = parser.parse_args()
    if (given.variant == "init") != (given.seed is None):
        parser.error("sft and distilled need a training seed, one of `seeds` in params.yaml, and init takes none")
    this = Run(given.variant, given.seed)
    params = params_file.load()
    tracking.require(params.train.report_to)
    tracked = home(os.environ, Path.cwd()) / "tracking"
    tracked.mkdir(parents=True, exist_ok=True)
    for name, value in tracking.offline(tracked.absolute()).items():
        os.environ.setdefault(name, value)
    models.prepare(params.runtime.threads, params.seed if this.seed is None else this.seed)
    rows, validation = list(read_rows(TRAIN, "stage weight")), list(read_rows(VALIDATION, "stage clean"))
    network, tokenizer, report = untrained_student(params, rows, validation)
    teacher_tokens = sum(len(row["logprobs"] or row["response"].split()) for row in validation)
    dtype = models.compute_dtype(params.runtime.dtype)
    measure = partial(
        validation_loss, validation=validation, tokenizer=tokenizer, teacher_tokens=teacher_tokens, dtype=dtype
    )
    first = measure(network)
    print(f"{models.parameter_count(network):,} parameters, validation perplexity {math.exp(first):.4g} untrained")
    log: list[dict[str, Any]] = []
    folder = checkpoint_folder(params, this)
    if this.seed is not None:
        settings = settings_of(params, this)
        training = fitting.Training(
            name=this.name,
            seed=this.seed,
            schedule=params.train.schedule,
            settings=settings,
            dtype=dtype,
            checkpoints=folder,
            curves=LIVE / this.name,
            report_to=params.train.report_to,
            measure=measure,
        )
        learnt_from = lessons(params, settings, this.seed, rows, network, tokenizer)
        log, trained = fitting.fit(network, learnt_from, training, first)
        report |= {"loss": settings.loss} | trained
    table = log_table(log, first, report.get("steps", 1) / report.get("epochs", 1))
    report |= {
        "parameters": models.parameter_count(network),
        "validation_loss": float(table[table.split == "validation"].loss.iloc[-1]),
    }
    with whole_folder(this.folder) as target:
        save(network.to(getattr(torch, params.train.save_dtype)), tokenizer, target)
        model_card.write(target, model_card.lineage(params, this, rows, [TRAIN]), report)
    with whole_file(this.record.with_name(f"{this.name}_log.csv")) as target:
        table.to_csv(target, index=False, lineterminator="\n")
    report |= {"weights": weights_hash(this.folder)}
    write_json(this.record, {"variant": this.variant, "seed": this.seed} | report)
    environment.record(this.stage, params.runtime)
    shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    run(main)
