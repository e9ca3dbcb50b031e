"""Train one model in place, in a fixed order, with checkpoints to resume from."""

import math
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from transformers import PreTrainedModel, TrainerCallback

from distill.core.errors import UserError
from distill.losses.hidden_states import remove_projections
from distill.losses.logit_loss import LossSettings
from distill.modeling import loading
from distill.modeling.batches import pad_batch
from distill.modeling.forward import response_only_parameters
from distill.modeling.packing import shared_columns
from distill.params.train import Adapter, Optimization
from distill.students import lora
from distill.training import throughput
from distill.training.checkpoints import SealCheckpoints, last_whole_checkpoint
from distill.training.compile import compiled
from distill.training.data import TrainingData
from distill.training.dataset import Sample
from distill.training.sampler import OrderedDataset, training_order
from distill.training.tied_embeddings import gradients_in_place
from distill.training.trainer import DistillTrainer, Objective, training_arguments
from distill.training.validation import ValidationCallback

CHECKPOINTS_BYTES = 3 * 12  # a trained parameter: three checkpoints of weights and two moments in fp32
MODEL_BYTES = 4  # a parameter


@dataclass(frozen=True)
class FitConfig:
    """How a model is trained, and where its traces go."""

    name: str  # of the run, for a tracker
    seed: int
    optimization: Optimization
    loss: LossSettings
    adapter: Adapter | None  # None: all weights are trained
    dtype: torch.dtype  # of matmuls
    checkpoints: Path  # a folder
    curves: Path  # a folder
    compile: bool  # the layers by torch.compile
    report_to: str | None  # a tracker in addition to the curves
    validation_loss: Callable[[PreTrainedModel], float]

    @property
    def step_size(self) -> int:
        """Samples of an optimiser step."""
        return self.optimization.batch_size * self.optimization.gradient_accumulation_steps


@dataclass(frozen=True)
class FitResult:
    """The Trainer's log, and the optimiser steps, epochs and response tokens of a training."""

    log: list[dict[str, Any]]
    steps: int
    epochs: int
    response_tokens: int


def fit(
    model: PreTrainedModel,
    data: TrainingData,
    config: FitConfig,
    callbacks: Sequence[TrainerCallback] = (),
    order: Sequence[int] | None = None,
) -> FitResult:
    """Trains the model in place, on the samples in `order` or by default in `training_order`.

    An adapter is new in each training and merged into the weights at its end.
    """
    epochs, folder, samples = config.optimization.num_train_epochs, config.checkpoints, data.samples
    if order is None:
        order = training_order([len(sample) for sample in samples], config.step_size, epochs, config.seed)
    result = FitResult(
        log=[],
        steps=math.ceil(len(order) / config.step_size),
        epochs=epochs,
        response_tokens=sum(len(sample.response) for sample in samples) * epochs,
    )
    space = _require_space(model, config)
    if model.device.type == "cpu":
        model.set_attn_implementation("eager")  # short rows: 1.2 times as fast as sdpa's backward
    adapted = lora.attached(model, config.adapter, config.dtype, config.seed)
    with adapted, gradients_in_place(model), compiled(model, config.compile):
        trainer = DistillTrainer(
            Objective(config.loss, data.teacher, data.on_policy, data.hidden_loss),
            config.dtype,
            model=model,
            args=training_arguments(
                folder, config.optimization, result.steps, config.seed, config.name, config.report_to
            ),
            train_dataset=OrderedDataset(samples, order),
            callbacks=[*callbacks, SealCheckpoints()],
        )
        trainer.add_callback(ValidationCallback(config.validation_loss, trainer.log, result.steps, epochs))
        resumed = last_whole_checkpoint(folder)
        if resumed:
            print(f"resuming from {resumed.name}")
        started = time.monotonic()
        _train(trainer, resumed, folder, space)
    seconds = time.monotonic() - started
    remove_projections(model)
    if not resumed:
        print(f"{result.steps} steps, {result.response_tokens} response tokens in {seconds:.0f} s")
        hints = 0.0 if data.hidden_loss is None else data.hidden_loss.hint_fraction
        print(throughput_line(model, [samples[index] for index in order], seconds, config, 1 - hints))
    result.log.extend(trainer.state.log_history)
    return result


def _require_space(model: PreTrainedModel, config: FitConfig) -> int:
    """Bytes that checkpoints and the model need. Raises UserError where fewer are free."""
    trained = lora.trained_parameters(model, config.adapter)
    space = trained * CHECKPOINTS_BYTES + loading.parameter_count(model) * MODEL_BYTES
    config.checkpoints.mkdir(parents=True, exist_ok=True)
    if shutil.disk_usage(config.checkpoints).free < space:
        raise UserError(f"{config.checkpoints} must have {space / 1e9:.1f} GB free for checkpoints and the model.")
    return space


def _train(trainer: DistillTrainer, resumed: Path | None, folder: Path, space: int) -> None:
    """Trains on from a checkpoint, if there is one. Raises UserError where the disk is full."""
    try:
        trainer.train(resume_from_checkpoint=str(resumed) if resumed else None)
    except (RuntimeError, SafetensorError) as error:
        if shutil.disk_usage(folder).free > space / 4:
            raise
        raise UserError(
            f"{folder}: the disk is full ({error}). Free some space and run the same command again; it resumes from "
            "the last whole checkpoint."
        ) from None


def throughput_line(
    model: PreTrainedModel, seen: list[Sample], seconds: float, config: FitConfig, logit_fraction: float
) -> str:
    """One line on the training that saw these samples, in this order; a fraction of its steps had logits."""
    predicted = sum(len(sample.predicted) for sample in seen)
    flops = training_flops(model, seen, config.step_size, logit_fraction)
    if config.adapter is not None:
        flops = flops * 2 // 3  # frozen weights have no gradient of their own: 4 operations for each and token, not 6
    return throughput.report(flops, predicted, seconds, config.dtype, model.device)


def training_flops(model: PreTrainedModel, seen: Sequence[Sample], batch_size: int, logit_fraction: float = 1.0) -> int:
    """Model FLOPs of these samples' steps: forward and backward of the student (`throughput.training_flops`).

    Padding does not count, and a beginning that all rows of a batch share counts once; nor does a teacher.
    """
    computed = predicted = 0
    for start in range(0, len(seen), batch_size):
        samples = seen[start : start + batch_size]
        batch = pad_batch([(sample.prompt, sample.predicted) for sample in samples])
        computed += int(batch.attention_mask.sum()) - shared_columns(batch) * (len(samples) - 1)
        predicted += int(batch.response_mask.sum())
    with_logits = round(logit_fraction * predicted)
    return throughput.training_flops(
        loading.parameter_count(model), response_only_parameters(model), computed, with_logits
    )
