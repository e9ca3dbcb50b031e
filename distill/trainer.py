"""transformers' Trainer with our loss, an order fixed in advance, and checkpoints that are whole."""

import math
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch.utils.data import Dataset
from tqdm import tqdm
from transformers import Trainer, TrainerCallback, TrainingArguments

from distill import adapters, cross_tokenizer, label_lessons, losses
from distill.dataset import Sample, collate
from distill.errors import UserError
from distill.layer_losses import LayerLoss, projected
from distill.live_teacher import LiveTeacher
from distill.logits import response_layers
from distill.on_policy import Answering
from distill.params import Schedule

WHOLE = "whole"  # a file written last into a checkpoint: without it the checkpoint is half written
TRAINED = "trained.safetensors"  # a checkpoint's weights where some of the network are frozen
NEIGHBOURS = 8  # batches whose samples are sorted by length together, where there are twice as many


def order(lengths: Sequence[int], batch_size: int, epochs: int, seed: int) -> list[int]:
    """Indices of the samples in the order of training, all epochs in one stream.

    Each epoch is shuffled; then samples of like length are put into the same batch within a window of
    NEIGHBOURS batches, or half of all where there are few (one window would sort by length whatever the seed), and
    the batches of a window are shuffled. It depends on its arguments alone, so that a resumed run goes on exactly
    where it was.
    """
    generator = torch.Generator().manual_seed(seed)
    stream = [index for _ in range(epochs) for index in torch.randperm(len(lengths), generator=generator).tolist()]
    size = batch_size * min(NEIGHBOURS, max(len(stream) // (2 * batch_size), 1))
    result: list[int] = []
    for start in range(0, len(stream), size):
        window = sorted(stream[start : start + size], key=lambda index: -lengths[index])
        batches = [window[place : place + batch_size] for place in range(0, len(window), batch_size)]
        places = torch.randperm(len(batches), generator=generator).tolist()
        if len(window) < size:  # a last batch that is not full stays the last
            places = list(range(len(batches)))
        result += [index for place in places for index in batches[place]]
    return result


class Ordered(Dataset):
    """The samples of all epochs, one after the other."""

    def __init__(self, samples: Sequence[Sample], indices: Sequence[int]) -> None:
        self.samples, self.indices = samples, indices

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, place: int) -> Sample:
        return self.samples[self.indices[place]]


def _collate(batch: Sequence[Sample]) -> dict[str, Any]:
    """A batch of samples, all of which choose a label or none."""
    return collate(batch) if batch[0].choice is None else label_lessons.collate(batch)


class DistillTrainer(Trainer):
    """The Trainer for `losses.Settings`: lm_head at response positions only, weights x tokens as the divisor.

    A `teacher` gives its whole distributions in each step; with `answering` the student writes some of the text; by a
    `layer_loss` layers of the student learn from the teacher's.
    """

    def __init__(
        self,
        settings: losses.Settings,
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
        ids, mask, predicts = (inputs[name] for name in ("input_ids", "attention_mask", "predicts"))
        plain = self.accelerator.unwrap_model(model)
        now, layers = (self.state.global_step, self.state.max_steps), self.layer_loss
        alone, factor = (layers.is_alone(*now), layers.factor(*now)) if layers else (False, 0.0)
        with torch.autocast(ids.device.type, dtype=self.autocast, enabled=self.autocast != torch.float32):
            logits, outputs = response_layers(
                plain, ids, mask, predicts, layers.layers if layers and factor else [],
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
                "generate.labels: students learn labels in one process on one device so far. Start one process, with "
                "CUDA_VISIBLE_DEVICES=0 where there are several GPUs."
            )
        with torch.autocast(model.device.type, dtype=self.autocast, enabled=self.autocast != torch.float32):
            return label_lessons.total(model, inputs, self.settings)

    def _logit_loss(self, logits: torch.Tensor, inputs: Any) -> torch.Tensor:
        """The micro-batch's weighted sum of token losses by the logits."""
        top = self._targets(inputs)
        if isinstance(top, cross_tokenizer.SpanTargets):
            return cross_tokenizer.total(logits, inputs["labels"], inputs["weights"], top, self.settings)
        return losses.total(logits, inputs["labels"], inputs["weights"], top, self.settings)

    def _targets(self, inputs: Any) -> losses.TopK | losses.Full | cross_tokenizer.SpanTargets | None:
        """What the teacher says of the batch: stored in it, or made from what is stored, or asked now."""
        if "top_length" in inputs:
            names = cross_tokenizer.SpanTargets.__dataclass_fields__
            return cross_tokenizer.SpanTargets(**{name: inputs[f"top_{name}"] for name in names})
        if "top_ids" in inputs:
            return losses.TopK(inputs["top_ids"], inputs["top_log_probs"], inputs["top_tail"], inputs["top_known"])
        if self.teacher is None:
            return None
        if "teacher_states" in inputs:
            return self.teacher.of_states(inputs["teacher_states"], inputs["teacher_known"])
        return self.teacher.of_text(
            *(inputs[f"teacher_{name}"] for name in ("ids", "mask", "predicts", "places", "known"))
        )

    def _save(self, output_dir: str | None = None, state_dict: dict[str, Any] | None = None) -> None:
        """Writes the weights of a checkpoint: all, or where some are frozen those that are trained."""
        assert output_dir is not None, "only checkpoints are saved"
        network = self.accelerator.unwrap_model(self.model)
        if all(weight.requires_grad for weight in network.parameters()):
            super()._save(output_dir, state_dict)
        elif self.args.should_save:
            Path(output_dir).mkdir(parents=True, exist_ok=True)
            weights = {name: weight.detach() for name, weight in adapters.trained(network).items()}
            save_file(weights, Path(output_dir) / TRAINED)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        """Reads what `_save` wrote."""
        file = Path(resume_from_checkpoint) / TRAINED
        if not file.exists():
            super()._load_from_checkpoint(resume_from_checkpoint, model)
            return
        kept = load_file(file)
        for name, weight in adapters.trained(self.model).items():
            weight.data.copy_(kept[name])


class MarkWhole(TrainerCallback):
    """Marks each checkpoint after its last file, so that one cut off by a kill is never resumed from."""

    def on_save(self, args: TrainingArguments, state: Any, control: Any, **kwargs: Any) -> None:
        (Path(str(args.output_dir)) / f"checkpoint-{state.global_step}" / WHOLE).touch()


class Validate(TrainerCallback):
    """Gives `measure(model)` as `validation_loss` to `log` at the end of each epoch, and prints it."""

    def __init__(
        self, measure: Callable[[Any], float], log: Callable[[dict[str, float]], None], steps: int, epochs: int
    ) -> None:
        self.measure = measure
        self.log = log
        self.at = {round(steps * epoch / epochs) for epoch in range(1, epochs + 1)}

    def on_step_end(self, args: TrainingArguments, state: Any, control: Any, **kwargs: Any) -> None:
        if state.global_step in self.at:
            model = kwargs["model"].eval()
            loss = self.measure(model)
            model.train()
            due = control.should_log
            self.log({"validation_loss": loss})
            control.should_log = due  # the training loss of this step, which a call of `log` takes for written
            tqdm.write(f"step {state.global_step}: validation perplexity {math.exp(loss):.2f}")


def last_whole_checkpoint(folder: Path) -> Path | None:
    """The newest whole checkpoint; half-written ones are removed."""
    found = sorted(folder.glob("checkpoint-*"), key=lambda path: int(path.name.partition("-")[2]))
    for path in found:
        if not (path / WHOLE).exists():
            shutil.rmtree(path)
    whole = [path for path in found if path.exists()]
    return whole[-1] if whole else None


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
