"""The exponential moving average of a student's weights during training, saved with each checkpoint."""

from pathlib import Path
from typing import Any

from safetensors.torch import load_model, save_model
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from transformers import PreTrainedModel, TrainerCallback, TrainerControl, TrainerState, TrainingArguments

FILE = "average.safetensors"


class EMACallback(TrainerCallback):
    """`model` is the exponential moving average of the weights after each optimiser step, the first taken as it is.

    As in mean teacher (Tarvainen and Valpola 2017): average <- decay x average + (1 - decay) x weights.
    """

    def __init__(self, model: PreTrainedModel, decay: float) -> None:
        self.averaged = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(decay))

    @property
    def model(self) -> PreTrainedModel:
        """The model with the averaged weights."""
        return self.averaged.module  # type: ignore[return-value]

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        if state.global_step:  # resumes from a checkpoint
            load_model(self.model, _file(args, state))
            self.averaged.n_averaged.fill_(state.global_step)

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        self.averaged.update_parameters(kwargs["model"])

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        save_model(self.model, str(_file(args, state)))


def _file(args: TrainingArguments, state: TrainerState) -> Path:
    return Path(str(args.output_dir)) / f"checkpoint-{state.global_step}" / FILE
