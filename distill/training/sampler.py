"""The fixed order of training samples."""

from collections.abc import Sequence

import torch
from torch.utils.data import Dataset

from distill.training.dataset import Sample

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
