"""One training of a network in place: in a fixed order, with checkpoints to go on from after a kill."""

import math
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from transformers import TrainerCallback

from distill.core.errors import UserError
from distill.losses import divergences
from distill.losses.hidden_states import remove_projections
from distill.modeling import loading
from distill.modeling.batches import pad_batch
from distill.modeling.forward import late_parameters
from distill.modeling.packing import shared_columns
from distill.params.students import Adapter
from distill.params.train import Schedule, Variant
from distill.students import lora
from distill.training import throughput, tied_embeddings
from distill.training.checkpoints import MarkWhole, last_whole_checkpoint
from distill.training.compile import compiled
from distill.training.data import Lessons
from distill.training.dataset import Sample
from distill.training.sampler import Ordered, order
from distill.training.trainer import DistillTrainer, arguments
from distill.training.validation import Validate

CHECKPOINTS_BYTES = 3 * 12  # a trained parameter: three checkpoints of weights and two moments in fp32
MODEL_BYTES = 4  # a parameter


@dataclass(frozen=True)
class Training:
    """How a network is trained, and where that leaves its traces."""

    name: str  # of the run, for a tracker
    seed: int
    schedule: Schedule
    settings: Variant
    adapter: Adapter | None  # None: all of the network is trained
    dtype: torch.dtype  # of matmuls
    checkpoints: Path  # a folder
    curves: Path  # a folder
    compile: bool  # its layers by torch.compile
    report_to: str | None  # a tracker beside the curves
    measure: Callable[[Any], float]  # of a network: its validation loss


def fit(
    network: Any, lessons: Lessons, training: Training, callbacks: Sequence[TrainerCallback]
) -> tuple[list[dict[str, Any]], dict[str, int]]:
    """Trains the network in place; returns the log and the numbers of steps, epochs and response tokens.

    An adapter is a new one in each training, and part of the network's own weights at its end.
    """
    schedule, folder, data = training.schedule, training.checkpoints, lessons.samples
    step_size = schedule.batch_size * schedule.gradient_accumulation
    indices = order([len(sample) for sample in data], step_size, schedule.epochs, training.seed)
    steps = math.ceil(len(indices) / step_size)
    tokens = sum(len(sample.response) for sample in data) * schedule.epochs
    trained = lora.trained_parameters(network, training.adapter)
    space = trained * CHECKPOINTS_BYTES + loading.parameter_count(network) * MODEL_BYTES
    folder.mkdir(parents=True, exist_ok=True)
    if shutil.disk_usage(folder).free < space:
        raise UserError(f"{folder} has less than the {space / 1e9:.1f} GB free that checkpoints and the model need.")
    if network.device.type == "cpu":
        network.set_attn_implementation("eager")  # short rows: 1.2 times as fast as sdpa's backward
    adapted = lora.attached(network, training.adapter, training.dtype, training.seed)
    with adapted, tied_embeddings.gradients_in_place(network), compiled(network, training.compile):
        trainer = DistillTrainer(
            settings=divergences.Settings(**training.settings.model_dump(exclude={"layer_loss"})),
            autocast=training.dtype,
            teacher=lessons.teacher,
            answering=lessons.answering,
            layer_loss=lessons.layer_loss,
            model=network,
            args=arguments(folder, schedule, steps, training.seed, training.name, training.report_to),
            train_dataset=Ordered(data, indices),
            callbacks=[*callbacks, MarkWhole()],
        )
        trainer.add_callback(Validate(training.measure, trainer.log, steps, schedule.epochs))
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
    remove_projections(network)
    if not resumed:
        print(f"{steps} steps, {tokens} response tokens in {seconds:.0f} s")
        silent = 0.0 if lessons.layer_loss is None else lessons.layer_loss.alone
        print(speed(network, [data[index] for index in indices], step_size, seconds, training, 1 - silent))
    return trainer.state.log_history, {"steps": steps, "epochs": schedule.epochs, "response_tokens": tokens}


def speed(
    network: Any, seen: list[Sample], batch_size: int, seconds: float, training: Training, with_logits: float
) -> str:
    """One line on the training that saw these samples, in this order; in the share `with_logits` there were logits."""
    predicted = sum(len(sample.predicted) for sample in seen)
    needed = flops(network, seen, batch_size, with_logits)
    if training.adapter is not None:
        needed = needed * 2 // 3  # frozen weights have no gradient of their own: 4 operations for each and token, not 6
    return throughput.report(needed, predicted, seconds, training.dtype, network.device)


def flops(network: Any, seen: Sequence[Sample], batch_size: int, with_logits: float = 1.0) -> int:
    """Model FLOPs of these samples' steps, `throughput.training_flops`: forward and backward of the student.

    Padding does not count, and a beginning that all rows of a batch share counts once; nor does a teacher.
    """
    computed = predicted = 0
    for start in range(0, len(seen), batch_size):
        batch = seen[start : start + batch_size]
        rows = pad_batch([(sample.prompt, sample.predicted) for sample in batch])
        computed += int(rows.attention_mask.sum()) - shared_columns(rows) * (len(batch) - 1)
        predicted += int(rows.response_mask.sum())
    asked = round(with_logits * predicted)
    return throughput.training_flops(loading.parameter_count(network), late_parameters(network), computed, asked)
