"""Validation loss on held-out topics, in one unit for every student of an experiment."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from tqdm import tqdm
from transformers import (
    PreTrainedModel,
    PreTrainedTokenizerFast,
    TrainerCallback,
    TrainerControl,
    TrainerState,
    TrainingArguments,
)

from distill.core.errors import UserError
from distill.core.files import Row
from distill.core.numbers import perplexity
from distill.modeling import class_labels
from distill.modeling.chat import encode
from distill.modeling.scoring import negative_log_likelihood

BATCH_TOKENS = 4096  # padded tokens of one batch


@dataclass(frozen=True)
class Validation:
    """The held-out rows in the student's tokens. The loss is in nats per `unit`, of which there are `count`.

    The unit is a token of the teacher if it is known how many each response has, else a token of the student. With
    class labels it is a row.
    """

    rows: Sequence[Row]
    tokenizer: PreTrainedTokenizerFast
    class_labels: Sequence[str] | None
    dtype: torch.dtype
    unit: str
    count: int

    @classmethod
    def of(
        cls,
        rows: Sequence[Row],
        tokenizer: PreTrainedTokenizerFast,
        labels: Sequence[str] | None,
        dtype: torch.dtype,
    ) -> "Validation":
        """The validation of students with this tokenizer."""
        if labels is not None:
            return cls(rows, tokenizer, labels, dtype, "row", len(rows))
        counts = [teacher_tokens(row) for row in rows]
        if all(counts):
            return cls(rows, tokenizer, None, dtype, "teacher token", sum(counts))
        tokens = sum(len(encode(tokenizer, row).response) for row in rows)
        return cls(rows, tokenizer, None, dtype, "student token", tokens)

    def loss(self, model: PreTrainedModel) -> float:
        """Nats per unit of the validation responses. Raises UserError where they are not finite."""
        loss = self._nats(model) / self.count
        if not math.isfinite(loss):
            raise UserError(
                f"The validation loss must be finite, got {loss}: the student's weights or logits overflow. Lower "
                "train.optimization.learning_rate, or start from another student."
            )
        return loss

    def _nats(self, model: PreTrainedModel) -> float:
        with torch.autocast(model.device.type, dtype=self.dtype, enabled=self.dtype != torch.float32):
            if self.class_labels is not None:
                return self._class_label_nats(model, self.class_labels)
            examples = [encode(self.tokenizer, row) for row in self.rows]
            return negative_log_likelihood(model, examples, BATCH_TOKENS)

    def _class_label_nats(self, model: PreTrainedModel, labels: Sequence[str]) -> float:
        messages = [row["messages"] for row in self.rows]
        _, log_probs = class_labels.label_log_probs(model, self.tokenizer, messages, labels, BATCH_TOKENS)
        responses = (labels.index(row["response"]) for row in self.rows)
        return sum(-nats[label] for nats, label in zip(log_probs.tolist(), responses, strict=True))


def teacher_tokens(row: Row) -> int:
    """The number of the teacher's tokens in a response, by its log-probabilities or its usage; 0 where unknown.

    A usage of more tokens than the response has bytes and an end of turn counts hidden reasoning too, and says nothing.
    """
    if row["logprobs"]:
        return len(row["logprobs"])
    tokens = (row.get("usage") or {}).get("completion_tokens", 0)
    return tokens if 0 < tokens <= len(row["response"].encode()) + 1 else 0


class ValidationCallback(TrainerCallback):
    """Logs `loss(model)` as `validation_loss` at the end of each epoch, and prints it."""

    def __init__(
        self, loss: Callable[[PreTrainedModel], float], log: Callable[[dict[str, float]], None], steps: int, epochs: int
    ) -> None:
        self.loss = loss
        self.log = log
        self.steps = {round(steps * epoch / epochs) for epoch in range(1, epochs + 1)}

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        if state.global_step in self.steps:
            model = kwargs["model"].eval()
            loss = self.loss(model)
            model.train()
            due = control.should_log
            self.log({"validation_loss": loss})
            control.should_log = due  # `log` would take the training loss of this step for written
            tqdm.write(f"step {state.global_step}: validation perplexity {perplexity(loss):.2f}")
