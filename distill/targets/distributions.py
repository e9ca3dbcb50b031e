"""The teacher's distributions as a loss sees them: at temperature 1, in the student's vocabulary."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from typing import Self

import torch


@dataclass(frozen=True)
class TensorFields:
    """A record of tensors, a row for each response token, that is concatenated and moved as one."""

    @classmethod
    def concatenate(cls, records: Sequence[Self]) -> Self:
        """The rows of all records, in order."""
        return cls(*(torch.cat([getattr(record, field.name) for record in records]) for field in fields(cls)))

    def to(self, device: torch.device) -> Self:
        """The record on a device."""
        return type(self)(*(getattr(self, field.name).to(device) for field in fields(self)))


@dataclass(frozen=True)
class TopK(TensorFields):
    """The k best tokens at each token of the response, and the mass of all others."""

    ids: torch.Tensor  # [tokens, k] long
    log_probs: torch.Tensor  # [tokens, k] nats, -inf where a row has fewer than k
    tail: torch.Tensor  # [tokens] log of the mass of all other tokens
    known: torch.Tensor  # [tokens] bool: false where the teacher has no distribution; cross-entropy is used there


@dataclass(frozen=True)
class OutputStates(TensorFields):
    """The inputs of the teacher's output matrix, from which its full distributions follow."""

    states: torch.Tensor  # [tokens, width]
    known: torch.Tensor  # [tokens] bool, as in TopK


@dataclass(frozen=True)
class Full:
    """The full distribution at each token of the response, computed chunk by chunk when the loss needs it."""

    log_probs: Callable[[slice], torch.Tensor]  # tokens -> [tokens, vocab] nats
    known: torch.Tensor  # [tokens] bool, as in TopK
