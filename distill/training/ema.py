"""The moving average of a student's weights while it is trained, which a checkpoint carries along."""

from pathlib import Path
from typing import Any

from safetensors.torch import load_model, save_model
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from transformers import TrainerCallback, TrainingArguments

FILE = "average.safetensors"


class Average(TrainerCallback):
    """`network` is the exponential moving average of the weights after each optimiser step, the first taken whole.

    As in mean teacher (Tarvainen and Valpola 2017): average <- decay x average + (1 - decay) x weights.
    """

    def __init__(self, model: Any, decay: float) -> None:
        self.averaged = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(decay))

    @property
    def network(self) -> Any:
        """The model with the averaged weights."""
        return self.averaged.module

    def on_train_begin(self, args: TrainingArguments, state: Any, control: Any, **kwargs: Any) -> None:
        if state.global_step:  # goes on from a checkpoint
            load_model(self.network, _file(args, state))
            self.averaged.n_averaged.fill_(state.global_step)

    def on_step_end(self, args: TrainingArguments, state: Any, control: Any, **kwargs: Any) -> None:
        self.averaged.update_parameters(kwargs["model"])

    def on_save(self, args: TrainingArguments, state: Any, control: Any, **kwargs: Any) -> None:
        save_model(self.network, str(_file(args, state)))


def _file(args: TrainingArguments, state: Any) -> Path:
    return Path(str(args.output_dir)) / f"checkpoint-{state.global_step}" / FILE
