"""transformers' Trainer with our loss, an order fixed in advance, and checkpoints that are whole."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from transformers import Trainer, TrainingArguments

from distill.core.errors import UserError
from distill.losses import class_labels as losses_class_labels
from distill.losses import cross_tokenizer, divergences
from distill.losses.hidden_states import LayerLoss, projected
from distill.modeling.batches import PaddedBatch
from distill.modeling.forward import response_layers
from distill.params.train import Schedule
from distill.students import lora
from distill.targets import spans
from distill.training import class_labels as training_class_labels
from distill.training.dataset import Sample, collate
from distill.training.on_policy import Answering
from distill.training.online_teacher import LiveTeacher

TRAINED = "trained.safetensors"  # a checkpoint's weights where some of the network are frozen


def _collate(batch: Sequence[Sample]) -> dict[str, Any]:
    """A batch of samples, all of which choose a label or none."""
    return collate(batch) if batch[0].choice is None else training_class_labels.collate(batch)


class DistillTrainer(Trainer):
    """The Trainer for `losses.Settings`: lm_head at response positions only, weights x tokens as the divisor.

    A `teacher` gives its whole distributions in each step; with `answering` the student writes some of the text; by a
    `layer_loss` layers of the student learn from the teacher's.
    """

    def __init__(
        self,
        settings: divergences.Settings,
        autocast: torch.dtype,
        teacher: LiveTeacher | None = None,
        answering: Answering | None = None,
        layer_loss: LayerLoss | None = None,
        **arguments: Any,
    ) -> None:
        super().__init__(data_collator=_collate, **arguments)
        self.settings = settings
        self.autocast = autocast
        self.teacher = teacher
        self.answering = answering
        self.layer_loss = layer_loss
        self.loss_is_scaled_for_ga = True  # we divide by the whole step's weights x tokens

    def _get_train_sampler(self, train_dataset: Any = None) -> torch.utils.data.Sampler:
        return torch.utils.data.SequentialSampler(range(len(self.train_dataset)))  # type: ignore[arg-type]

    def get_batch_samples(self, epoch_iterator: Any, num_batches: int, device: torch.device) -> tuple[list, Any]:
        """The micro-batches of a step and their weights x tokens, after the student has answered where it shall."""
        batches, count = super().get_batch_samples(epoch_iterator, num_batches, device)
        if self.answering is None:
            return batches, count
        plain = self.accelerator.unwrap_model(self.model)
        steps = [f"{self.state.global_step}/{self.args.process_index}/{place}" for place in range(len(batches))]
        batches = [self.answering.batch(plain, batch, step) for batch, step in zip(batches, steps, strict=True)]
        return batches, self._get_num_items_in_batch(batches, device)

    def _get_num_items_in_batch(self, batch_samples: list[Any], device: torch.device) -> torch.Tensor:
        total = torch.stack([batch["weights"].sum() for batch in batch_samples]).sum().to(device)
        return self.accelerator.gather(total).sum()

    def compute_loss(
        self, model: Any, inputs: Any, return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> torch.Tensor:
        """The micro-batch's weighted sum of token losses over the sum of weights x tokens of the optimiser step.

        Of rows that choose a label it is that of row losses over the sum of weights.
        """
        if "questions" in inputs:
            return self._label_loss(model, inputs) / num_items_in_batch
        batch = PaddedBatch.from_tensors(inputs)
        plain = self.accelerator.unwrap_model(model)
        now, layers = (self.state.global_step, self.state.max_steps), self.layer_loss
        alone, factor = (layers.is_alone(*now), layers.factor(*now)) if layers else (False, 0.0)
        with torch.autocast(batch.input_ids.device.type, dtype=self.autocast, enabled=self.autocast != torch.float32):
            logits, outputs = response_layers(
                plain, batch, layers.layers if layers and factor else [],
                wrapper=None if plain is model else model, logits=not alone,
            )  # fmt: skip
            outputs = projected(plain, outputs)
        # the sum of no logits is 0, with a gradient for the output matrix
        total = logits.sum() if alone else self._logit_loss(logits, inputs)
        if layers and factor:
            names = ("layer_states", "weights", "layer_known")
            total = total + factor * layers.total(outputs, *(inputs[name] for name in names))
        return total * self.accelerator.num_processes / num_items_in_batch

    def _label_loss(self, model: Any, inputs: Any) -> torch.Tensor:
        """The micro-batch's weighted sum of the losses of rows that choose a label."""
        if self.accelerator.unwrap_model(model) is not model:
            raise UserError(
                "generate.class_labels: students learn labels in one process on one device so far. Start one process, "
                "with CUDA_VISIBLE_DEVICES=0 where there are several GPUs."
            )
        with torch.autocast(model.device.type, dtype=self.autocast, enabled=self.autocast != torch.float32):
            return losses_class_labels.total(model, inputs, self.settings)

    def _logit_loss(self, logits: torch.Tensor, inputs: Any) -> torch.Tensor:
        """The micro-batch's weighted sum of token losses by the logits."""
        top = self._targets(inputs)
        if isinstance(top, spans.SpanTargets):
            return cross_tokenizer.total(logits, inputs["labels"], inputs["weights"], top, self.settings)
        return divergences.total(logits, inputs["labels"], inputs["weights"], top, self.settings)

    def _targets(self, inputs: Any) -> divergences.TopK | divergences.Full | spans.SpanTargets | None:
        """What the teacher says of the batch: stored in it, or made from what is stored, or asked now."""
        if "top_length" in inputs:
            names = spans.SpanTargets.__dataclass_fields__
            return spans.SpanTargets(**{name: inputs[f"top_{name}"] for name in names})
        if "top_ids" in inputs:
            return divergences.TopK(inputs["top_ids"], inputs["top_log_probs"], inputs["top_tail"], inputs["top_known"])
        if self.teacher is None:
            return None
        if "teacher_states" in inputs:
            return self.teacher.of_states(inputs["teacher_states"], inputs["teacher_known"])
        batch = PaddedBatch.from_tensors(inputs, "teacher_")
        return self.teacher.of_text(batch, inputs["teacher_places"], inputs["teacher_known"])

    def _save(self, output_dir: str | None = None, state_dict: dict[str, Any] | None = None) -> None:
        """Writes the weights of a checkpoint: all, or where some are frozen those that are trained."""
        assert output_dir is not None, "only checkpoints are saved"
        network = self.accelerator.unwrap_model(self.model)
        if all(weight.requires_grad for weight in network.parameters()):
            super()._save(output_dir, state_dict)
        elif self.args.should_save:
            Path(output_dir).mkdir(parents=True, exist_ok=True)
            weights = {name: weight.detach() for name, weight in lora.trained(network).items()}
            save_file(weights, Path(output_dir) / TRAINED)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        """Reads what `_save` wrote."""
        file = Path(resume_from_checkpoint) / TRAINED
        if not file.exists():
            super()._load_from_checkpoint(resume_from_checkpoint, model)
            return
        kept = load_file(file)
        for name, weight in lora.trained(self.model).items():
            weight.data.copy_(kept[name])


def arguments(
    folder: Path, schedule: Schedule, steps: int, seed: int, name: str = "", tracker: str | None = None
) -> TrainingArguments:
    """The TrainingArguments of a schedule: `steps` optimiser steps in one pass over `Ordered`.

    The Trainer also reports to the `tracker` (wandb, mlflow, trackio), if there is one, as a run of this name.
    """
    return TrainingArguments(
        output_dir=str(folder),
        max_steps=steps,
        per_device_train_batch_size=schedule.batch_size,
        gradient_accumulation_steps=schedule.gradient_accumulation,
        learning_rate=schedule.learning_rate,
        warmup_steps=math.ceil(schedule.warmup_share * steps),
        lr_scheduler_type=schedule.decay
        if schedule.warmup_share == 0 or schedule.decay != "constant"
        else "constant_with_warmup",
        weight_decay=schedule.weight_decay,
        max_grad_norm=schedule.max_grad_norm,
        optim="adamw_torch_fused",
        logging_steps=schedule.log_every,
        logging_first_step=False,
        save_strategy="steps",
        save_steps=schedule.save_every,
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
