"""Padded batches of examples of similar length."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Self

import torch

from distill.modeling.chat import Example


@dataclass(frozen=True)
class PaddedBatch:
    """Token ids padded on the right, and two masks of them; each is [batch, seq].

    `response_mask` marks the positions whose output predicts a response token, one before each. Read row by row,
    they are in the order of the concatenated responses.
    """

    input_ids: torch.Tensor
    attention_mask: torch.Tensor
    response_mask: torch.Tensor

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, torch.Tensor], prefix: str = "") -> Self:
        """The batch that `tensors(prefix)` was added to."""
        return cls(*(tensors[f"{prefix}{name}"] for name in cls.__dataclass_fields__))

    def tensors(self, prefix: str = "") -> dict[str, torch.Tensor]:
        """The three tensors by name, `prefix` before each name."""
        return {f"{prefix}{name}": tensor for name, tensor in vars(self).items()}

    def response_ids(self) -> torch.Tensor:
        """The response tokens in the order of `response_mask`, [positions]."""
        return self.input_ids[:, 1:][self.response_mask[:, :-1]]

    def to(self, device: torch.device) -> Self:
        """The batch on a device."""
        return type(self)(*(tensor.to(device) for tensor in vars(self).values()))


def pad_batch(pairs: Sequence[tuple[list[int], list[int]]]) -> PaddedBatch:
    """One batch of (prompt, response) ids."""
    longest = max(len(prompt) + len(response) for prompt, response in pairs)
    input_ids = torch.zeros(len(pairs), longest, dtype=torch.long)
    attention_mask = torch.zeros(len(pairs), longest, dtype=torch.long)
    response_mask = torch.zeros(len(pairs), longest, dtype=torch.bool)
    for row, (prompt, response) in enumerate(pairs):
        end = len(prompt) + len(response)
        input_ids[row, :end] = torch.tensor([*prompt, *response])
        attention_mask[row, :end] = 1
        response_mask[row, len(prompt) - 1 : end - 1] = True
    return PaddedBatch(input_ids, attention_mask, response_mask)


def length_batches(examples: Sequence[Example], batch_tokens: int) -> list[list[int]]:
    """Indices of the examples, longest first, in batches of at most `batch_tokens` padded tokens.

    A longer example is a batch of its own.
    """
    lengths = [len(example.prompt) + len(example.response) for example in examples]
    order = sorted(range(len(examples)), key=lambda index: (-lengths[index], examples[index].id))
    batches: list[list[int]] = []
    for index in order:
        if batches and lengths[batches[-1][0]] * (len(batches[-1]) + 1) <= batch_tokens:
            batches[-1].append(index)
        else:
            batches.append([index])
    return batches


def padded_batches(examples: Sequence[Example], batch_tokens: int) -> Iterator[tuple[list[int], PaddedBatch]]:
    """Yields (indices of the examples, their batch), longest first."""
    for indices in length_batches(examples, batch_tokens):
        yield indices, pad_batch([(examples[index].prompt, examples[index].response) for index in indices])
