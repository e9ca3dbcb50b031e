"""Padded batches of like length, and the positions in them that predict a response token."""

from collections.abc import Sequence

import torch

from distill.modeling.chat import Example


def by_length(examples: Sequence[Example], batch_tokens: int) -> list[list[int]]:
    """Indices of the examples in batches of at most `batch_tokens` padded tokens (one example at least), long first."""
    lengths = [len(example.prompt) + len(example.response) for example in examples]
    order = sorted(range(len(examples)), key=lambda index: (-lengths[index], examples[index].id))
    batches: list[list[int]] = []
    for index in order:
        if batches and lengths[batches[-1][0]] * (len(batches[-1]) + 1) <= batch_tokens:
            batches[-1].append(index)
        else:
            batches.append([index])
    return batches


def padded(pairs: Sequence[tuple[list[int], list[int]]]) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """(prompt, response) id pairs as right-padded input ids, attention mask and prediction mask, [batch, seq] each.

    The prediction mask is true at the positions whose output predicts a response token: one before each.
    Read row by row, they are in the order of the concatenated responses.
    """
    longest = max(len(prompt) + len(response) for prompt, response in pairs)
    ids = torch.zeros(len(pairs), longest, dtype=torch.long)
    mask = torch.zeros(len(pairs), longest, dtype=torch.long)
    predicts = torch.zeros(len(pairs), longest, dtype=torch.bool)
    for row, (prompt, response) in enumerate(pairs):
        end = len(prompt) + len(response)
        ids[row, :end] = torch.tensor([*prompt, *response])
        mask[row, :end] = 1
        predicts[row, len(prompt) - 1 : end - 1] = True
    return ids, mask, predicts
