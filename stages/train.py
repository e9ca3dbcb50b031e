"""Makes one student: `python -m stages.train init`, or `sft` or `distilled` with a training seed after it.

Reads  data/weighted/train.jsonl, data/weighted/targets, data/clean/validation.jsonl,
       params seed (of init alone), runtime, teachers, weight.targets, train
Writes models/<run>, metrics/train/<run>.json, metrics/train/<run>_log.csv, and while it trains DVCLive's files
       metrics/live/<run>/metrics.json, metrics/live/<run>/plots/metrics;
       checkpoints to resume from in .distill/checkpoints, metrics/environment/{init,train@<run>}.json
"""

import argparse
import math
import os
import shutil
import time
from collections.abc import Iterable
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from safetensors import SafetensorError

from distill import (
    environment,
    losses,
    model_card,
    models,
    on_policy,
    student,
    targets,
    throughput,
    tracking,
    vocabulary,
)
from distill import params as params_file
from distill.answers import Sampling
from distill.batches import padded
from distill.chat import encode, end_of_turn, response_ids
from distill.dataset import Sample, samples
from distill.errors import UserError, run
from distill.files import file_hash, read_rows, value_hash, whole_file, whole_folder, write_json
from distill.home import home
from distill.live_teacher import LiveTeacher
from distill.logits import shared_columns
from distill.on_policy import Answering
from distill.params import LocalTeacher, Params, Targets, Variant
from distill.runs import TRAINED, Run, weights_hash
from distill.scoring import negative_log_likelihood
from distill.trainer import (
    DistillTrainer,
    MarkWhole,
    Ordered,
    Validate,
    add_embedding_gradients_sparsely,
    arguments,
    last_whole_checkpoint,
    order,
)

TRAIN = Path("data/weighted/train.jsonl")
TARGETS = Path("data/weighted/targets")
VALIDATION = Path("data/clean/validation.jsonl")
LIVE = Path("metrics/live")
CODE = [Path(__file__), *sorted(Path(losses.__file__).parent.glob("*.py"))]
VALIDATION_TOKENS = 4096  # padded tokens of one validation batch
CHECKPOINT_BYTES = 3 * 12 + 4  # a parameter: three checkpoints of weights and two moments in fp32, and the model

Rows = list[dict[str, Any]]
Stored = Iterable[tuple[str, targets.Rows | targets.States]]


def teacher_of(params: Params, name: str) -> LocalTeacher:
    """The local teacher of this name; the schema has checked that there is one."""
    return next(teacher for teacher in params.teachers if teacher.name == name and teacher.kind == "local")


def token_counts(rows: Rows, tokenizer: Any, stored: Stored | None, expected: torch.Tensor | None) -> dict[int, float]:
    """How often each of the teacher's tokens occurs in prompts and responses, and was expected by the teacher.

    The stored probabilities add what the teacher might have written as well: on unseen topics they find more
    of its words than the text alone. Whole distributions come as their sum, `expected`.
    """
    counts = torch.zeros(len(tokenizer))
    for row in rows:
        example = encode(tokenizer, row)
        ids = torch.tensor([*example.prompt, *example.response])
        counts += torch.bincount(ids, minlength=len(counts))
    for _, part in stored or ():
        if isinstance(part, targets.Rows):
            counts.scatter_add_(0, part.ids.flatten().long(), part.log_probs.flatten().float().exp())
    if expected is not None:
        counts += expected
    return {token: count for token, count in enumerate(counts.tolist()) if count > 0}


def stored_targets(params: Params, rows: Rows) -> tuple[Any, Stored | None]:
    """The teacher's tokenizer and its stored targets, which are None where it is asked during training.

    (None, ()) without a teacher.
    """
    wanted = params.weight.targets
    if wanted is None:
        return None, ()
    spec = teacher_of(params, wanted.teacher)
    tokenizer = models.load_tokenizer(spec.model, spec.revision, spec.sha256)
    dtype = str(models.compute_dtype(params.runtime.dtype)).removeprefix("torch.")
    stored = list(targets.read(TARGETS, targets.source(spec, tokenizer, rows, dtype, wanted)))
    return tokenizer, None if wanted.kind in ("online", "on_policy") else stored


def live_teacher(
    params: Params, wanted: Targets, seed: int, network: Any, tokenizer: Any, whole: Any
) -> tuple[LiveTeacher, Answering | None]:
    """The teacher, of tokenizer `whole`, beside the student, and how the student answers where it shall."""
    spec = teacher_of(params, wanted.teacher)
    dtype = models.compute_dtype(params.runtime.dtype)
    model, _ = models.load(spec.model, dtype, spec.revision, spec.sha256)
    width = network.get_output_embeddings().weight.shape[0]
    teacher = LiveTeacher(model, vocabulary.first_pieces(whole, tokenizer), width)
    if wanted.kind != "on_policy":
        return teacher, None
    sampling = Sampling(wanted.max_tokens, wanted.sampling_temperature, 1.0, seed)
    theirs = on_policy.teacher_ids(whole, tokenizer)
    return teacher, Answering(wanted.student_fraction, sampling, end_of_turn(tokenizer), theirs)


def untrained(params: Params, rows: Rows, validation: Rows) -> tuple[Any, Any, dict[str, Any]]:
    """The student before training, its tokenizer, and what there is to report of them."""
    choice = params.train.student
    if choice.source == "pretrained":
        network, tokenizer = models.load(choice.model, torch.float32, choice.revision)
        return network, tokenizer, {"source": choice.model}
    spec = teacher_of(params, choice.teacher)
    teacher, whole = models.load(spec.model, torch.float32, spec.revision, spec.sha256)
    _, stored = stored_targets(params, rows)
    wanted = params.weight.targets
    expected = targets.read_expected(TARGETS) if wanted and wanted.kind in targets.WHOLE else None
    kept = vocabulary.choose(whole, token_counts(rows, whole, stored, expected), choice.vocabulary)
    tokenizer = vocabulary.trim(whole, kept)
    calibration = [encode(whole, row) for row in rows[:: max(len(rows) // choice.calibration_rows, 1)]]
    parts = student.choose(teacher, choice, calibration[: choice.calibration_rows])
    network = student.cut(teacher, parts, kept).to(models.device())
    unseen = [response_ids(whole, row["response"], row["finish_reason"] == "stop") for row in validation]
    report = {
        "source": spec.name,
        "layers": parts.layers,
        "neurons": choice.neurons,
        "kv_heads": choice.kv_heads,
        "vocabulary": len(tokenizer),
        "validation_coverage": round(vocabulary.coverage(unseen, kept), 5),
    }
    return network, tokenizer, report


def validation_loss(network: Any, validation: Rows, tokenizer: Any, teacher_tokens: int, dtype: torch.dtype) -> float:
    """Nats per token of the teacher for the validation responses: the same measure for every student."""
    examples = [encode(tokenizer, row) for row in validation]
    device = network.device
    with torch.autocast(device.type, dtype=dtype, enabled=dtype != torch.float32):
        return negative_log_likelihood(network, examples, VALIDATION_TOKENS) / teacher_tokens


def checkpoint_folder(params: Params, this: Run) -> Path:
    """Where this run's checkpoints are: a run that differs in seed, params, data, code or torch has another folder."""
    data = [TRAIN, VALIDATION, TARGETS / targets.MANIFEST]
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


def fit(
    network: Any, tokenizer: Any, rows: Rows, this: Run, params: Params, folder: Path, measure: Any, first: float
) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Trains the network, whose validation loss is `first`, in place; returns the log and what there is to report."""
    assert this.seed is not None, "init is not trained"
    schedule, settings = params.train.schedule, settings_of(params, this)
    needed = settings.loss != "cross_entropy" and settings.cross_entropy_share < 1
    wanted = params.weight.targets if needed else None
    whole, stored = stored_targets(params, rows) if needed else (None, ())
    data = samples(rows, tokenizer, schedule.max_length, whole, stored)
    teacher, answering = None, None
    if wanted is not None and wanted.kind not in ("stored", "sampled"):
        teacher, answering = live_teacher(params, wanted, this.seed, network, tokenizer, whole)
    step_size = schedule.batch_size * schedule.gradient_accumulation
    indices = order([len(sample) for sample in data], step_size, schedule.epochs, this.seed)
    steps = math.ceil(len(indices) / step_size)
    tokens = sum(len(sample.response) for sample in data) * schedule.epochs
    space = models.parameter_count(network) * CHECKPOINT_BYTES
    folder.mkdir(parents=True, exist_ok=True)
    if shutil.disk_usage(folder).free < space:
        raise UserError(f"{folder} has less than the {space / 1e9:.1f} GB free that checkpoints and the model need.")
    if network.device.type == "cpu":
        network.set_attn_implementation("eager")  # short rows: 1.2 times as fast as sdpa's backward
        add_embedding_gradients_sparsely(network)
    trainer = DistillTrainer(
        settings=losses.Settings(**settings.model_dump()),
        autocast=models.compute_dtype(params.runtime.dtype),
        teacher=teacher,
        answering=answering,
        model=network,
        args=arguments(folder, schedule, steps, this.seed, this.name, params.train.report_to),
        train_dataset=Ordered(data, indices),
        callbacks=[MarkWhole(), tracking.Curves(LIVE / this.name, first)],
    )
    trainer.add_callback(Validate(measure, trainer.log, steps, schedule.epochs))
    resumed = last_whole_checkpoint(folder)
    if resumed:
        print(f"going on from {resumed.name}")
    started = time.monotonic()
    try:
        trainer.train(resume_from_checkpoint=str(resumed) if resumed else None)
    except (RuntimeError, SafetensorError) as error:
        if shutil.disk_usage(folder).free > space / 4:
            raise
        raise UserError(
            f"{folder}: the disk is full ({error}). Free some space and run the same command again; it goes on "
            "from the last whole checkpoint."
        ) from None
    seconds = time.monotonic() - started
    if not resumed:
        print(f"{steps} steps, {tokens} response tokens in {seconds:.0f} s")
        print(speed(network, [data[index] for index in indices], step_size, seconds, trainer.autocast))
    return trainer.state.log_history, {"steps": steps, "epochs": schedule.epochs, "response_tokens": tokens}


def speed(network: Any, seen: list[Sample], batch_size: int, seconds: float, dtype: torch.dtype) -> str:
    """One line on the training that saw these samples, in this order: a prompt's beginning counts once a batch."""
    predicted = sum(len(sample.response) for sample in seen)
    computed = 0
    for start in range(0, len(seen), batch_size):
        batch = seen[start : start + batch_size]
        ids, mask, predicts = padded([(sample.prompt, sample.response) for sample in batch])
        computed += int(mask.sum()) - shared_columns(ids, predicts) * (len(batch) - 1)
    output = network.get_output_embeddings().weight.numel()
    flops = throughput.training_flops(models.parameter_count(network), output, computed, predicted)
    return throughput.report(flops, predicted, seconds, dtype, network.device)


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
    network, tokenizer, report = untrained(params, rows, validation)
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
        log, trained = fit(network, tokenizer, rows, this, params, folder, measure, first)
        report |= {"loss": settings_of(params, this).loss} | trained
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
