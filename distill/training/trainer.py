"""transformers' Trainer with the distillation loss, a fixed order of samples, and small checkpoints of adapters."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from transformers import Trainer, TrainingArguments

from distill.core.errors import UserError
from distill.losses.cross_tokenizer import span_loss
from distill.losses.hidden_states import HiddenStateLoss, projected
from distill.losses.logit_loss import LossSettings, logit_loss
from distill.modeling.batches import PaddedBatch
from distill.modeling.forward import response_layers
from distill.params.train import Optimization
from distill.students import lora
from distill.targets.distributions import Full, TopK
from distill.targets.spans import SpanTargets
from distill.training import class_labels
from distill.training.dataset import BatchTargets, ClassTargets, Sample, collate
from distill.training.on_policy import OnPolicy
from distill.training.online_teacher import OnlineTeacher

TRAINED = "trained.safetensors"  # a checkpoint's weights if some of the model are frozen


@dataclass(frozen=True)
class Objective:
    """The loss of a training: its settings, and in addition an online teacher, on-policy responses, hidden states."""

    settings: LossSettings
    teacher: OnlineTeacher | None = None
    on_policy: OnPolicy | None = None
    hidden_loss: HiddenStateLoss | None = None


def _collate(batch: Sequence[Sample]) -> dict[str, Any]:
    """A batch of samples, all of which have class labels or none."""
    return class_labels.collate_class_labels(batch) if isinstance(batch[0].targets, ClassTargets) else collate(batch)


class DistillTrainer(Trainer):
    """The Trainer for an `Objective`: logits at response positions only, weights x tokens as the divisor."""

    def __init__(self, objective: Objective, autocast: torch.dtype, **arguments: Any) -> None:
        super().__init__(data_collator=_collate, **arguments)
        self.objective: Objective = objective
        self.autocast = autocast
        self.loss_is_scaled_for_ga = True  # we divide by the whole step's weights x tokens

    def _get_train_sampler(self, train_dataset: Any = None) -> torch.utils.data.Sampler:
        return torch.utils.data.SequentialSampler(range(len(self.train_dataset)))  # type: ignore[arg-type]

    def get_batch_samples(self, epoch_iterator: Any, num_batches: int, device: torch.device) -> tuple[list, Any]:
        """The micro-batches of a step and their weights x tokens, with the student's own responses if on-policy."""
        batches, count = super().get_batch_samples(epoch_iterator, num_batches, device)
        on_policy = self.objective.on_policy
        if on_policy is None:
            return batches, count
        model = self.accelerator.unwrap_model(self.model)
        steps = [f"{self.state.global_step}/{self.args.process_index}/{number}" for number in range(len(batches))]
        batches = [on_policy.batch(model, batch, step) for batch, step in zip(batches, steps, strict=True)]
        return batches, self._get_num_items_in_batch(batches, device)

    def _get_num_items_in_batch(self, batch_samples: list[Any], device: torch.device) -> torch.Tensor:
        total = torch.stack([batch["weights"].sum() for batch in batch_samples]).sum().to(device)
        return self.accelerator.gather(total).sum()

    def compute_loss(
        self, model: torch.nn.Module, inputs: Any, return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> torch.Tensor:
        """The micro-batch's weighted sum of token losses over the sum of weights x tokens of the optimiser step.

        With class labels it is that of row losses over the sum of weights.
        """
        if "candidates" in inputs:
            return self._class_label_loss(model, inputs) / num_items_in_batch
        batch = PaddedBatch.from_tensors(inputs)
        plain = self.accelerator.unwrap_model(model)
        hidden, now = self.objective.hidden_loss, (self.state.global_step, self.state.max_steps)
        is_hint, factor = (hidden.is_hint(*now), hidden.factor(*now)) if hidden else (False, 0.0)
        with torch.autocast(batch.input_ids.device.type, dtype=self.autocast, enabled=self.autocast != torch.float32):
            logits, outputs = response_layers(
                plain, batch, hidden.layers if hidden and factor else [],
                wrapper=None if plain is model else model, logits=not is_hint,
            )  # fmt: skip
            outputs = projected(plain, outputs)
        # the sum of no logits is 0, with a gradient for the output matrix
        total = logits.sum() if is_hint else self._logit_loss(logits, inputs)
        if hidden and factor:
            names = ("layer_states", "weights", "layer_known")
            total = total + factor * hidden.total(outputs, *(inputs[name] for name in names))
        return total * self.accelerator.num_processes / num_items_in_batch

    def training_step(self, *arguments: Any, **options: Any) -> torch.Tensor:
        """The loss of a micro-batch, with its gradients. Raises UserError where it is not finite."""
        return self._finite("loss", super().training_step(*arguments, **options))

    def _get_grad_norm(self, model: torch.nn.Module, grad_norm: Any = None) -> Any:
        return self._finite("norm of the gradient", super()._get_grad_norm(model, grad_norm))

    def _finite(self, name: str, value: Any) -> Any:
        """The value. Raises UserError where it is not finite: the next optimiser step would spoil all weights."""
        if not math.isfinite(value):
            now, args = f"step {self.state.global_step + 1} of {self.state.max_steps}", self.args
            raise UserError(
                f"train.optimization: the {name} must be finite, got {float(value)} at {now}. No student was replaced. "
                f"Lower learning_rate ({args.learning_rate:g}) or max_grad_norm ({args.max_grad_norm:g}), or raise "
                "warmup_ratio."
            )
        return value

    def _class_label_loss(self, model: torch.nn.Module, inputs: Any) -> torch.Tensor:
        """The micro-batch's weighted sum of the losses of rows with class labels."""
        if self.accelerator.unwrap_model(model) is not model:
            raise UserError(
                "generate.class_labels: training needs one process on one device, got several. Start one process, with "
                "CUDA_VISIBLE_DEVICES=0 where there are several GPUs."
            )
        with torch.autocast(model.device.type, dtype=self.autocast, enabled=self.autocast != torch.float32):
            return class_labels.batch_loss(model, inputs, self.objective.settings)

    def _logit_loss(self, logits: torch.Tensor, inputs: Any) -> torch.Tensor:
        """The micro-batch's weighted sum of token losses by the logits."""
        distributions = self._distributions(inputs.get("targets"))
        labels, weights, settings = inputs["labels"], inputs["weights"], self.objective.settings
        if isinstance(distributions, SpanTargets):
            return span_loss(logits, labels, weights, distributions, settings)
        return logit_loss(logits, labels, weights, distributions, settings)

    def _distributions(self, targets: BatchTargets | None) -> TopK | Full | SpanTargets | None:
        """The teacher's distributions of the batch: stored in it, or of the online teacher."""
        if targets is None or isinstance(targets, TopK | SpanTargets):
            return targets
        assert self.objective.teacher is not None, "targets that are not distributions need an online teacher"
        return self.objective.teacher.distributions(targets)

    def _save(self, output_dir: str | None = None, state_dict: dict[str, Any] | None = None) -> None:
        """Writes the weights of a checkpoint: all, or the trained ones if some are frozen."""
        assert output_dir is not None, "only checkpoints are saved"
        model = self.accelerator.unwrap_model(self.model)
        if all(weight.requires_grad for weight in model.parameters()):
            super()._save(output_dir, state_dict)
        elif self.args.should_save:
            Path(output_dir).mkdir(parents=True, exist_ok=True)
            weights = {name: weight.detach() for name, weight in lora.trained_weights(model).items()}
            save_file(weights, Path(output_dir) / TRAINED)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: torch.nn.Module | None = None) -> None:
        """Reads what `_save` wrote."""
        file = Path(resume_from_checkpoint) / TRAINED
        if not file.exists():
            super()._load_from_checkpoint(resume_from_checkpoint, model)
            return
        saved = load_file(file)
        for name, weight in lora.trained_weights(self.accelerator.unwrap_model(self.model)).items():
            weight.data.copy_(saved[name])


def training_arguments(
    folder: Path, optimization: Optimization, steps: int, seed: int, name: str = "", tracker: str | None = None
) -> TrainingArguments:
    """The TrainingArguments: `steps` optimiser steps in one pass over an `OrderedDataset`.

    The Trainer also reports to the `tracker` (wandb, mlflow, trackio), if there is one, as a run of this name.
    """
    constant_with_warmup = optimization.lr_scheduler_type == "constant" and optimization.warmup_ratio > 0
    return TrainingArguments(
        output_dir=str(folder),
        max_steps=steps,
        per_device_train_batch_size=optimization.batch_size,
        gradient_accumulation_steps=optimization.gradient_accumulation_steps,
        learning_rate=optimization.learning_rate,
        warmup_steps=math.ceil(optimization.warmup_ratio * steps),
        lr_scheduler_type="constant_with_warmup" if constant_with_warmup else optimization.lr_scheduler_type,
        weight_decay=optimization.weight_decay,
        max_grad_norm=optimization.max_grad_norm,
        optim="adamw_torch_fused",
        logging_steps=optimization.logging_steps,
        logging_first_step=False,
        logging_nan_inf_filter=False,  # `_finite` stops instead
        save_strategy="steps",
        save_steps=optimization.save_steps,
        save_total_limit=2,
        remove_unused_columns=False,
        dataloader_num_workers=0,
        dataloader_pin_memory=torch.cuda.is_available(),
        dataloader_drop_last=False,
        seed=seed,
        report_to=tracker or "none",
        run_name=name or None,
        project="distill",
        trackio_static_space_id=False,
        use_cpu=not torch.cuda.is_available(),
        use_cache=True,  # Trainer's default switches it off in the model, and in the config that is saved
    )
