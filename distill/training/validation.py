"""Validation loss at the end of each epoch."""

import math
from collections.abc import Callable
from typing import Any

from tqdm import tqdm
from transformers import TrainerCallback, TrainingArguments


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
