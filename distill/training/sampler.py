"""The fixed order of training samples."""

from collections.abc import Sequence

import torch
from torch.utils.data import Dataset

from distill.training.dataset import Sample

WINDOW_BATCHES = 8  # batches whose samples are sorted by length together, where there are twice as many


def training_order(lengths: Sequence[int], batch_size: int, epochs: int, seed: int) -> list[int]:
    """Indices of the samples in the order of training, all epochs in one stream.

    Each epoch is shuffled; then samples of similar length are put into the same batch within a window of WINDOW_BATCHES
    batches, or half of all where there are few (one window would sort by length whatever the seed), and the batches of
    a window are shuffled. It depends on its arguments alone, so that a resumed run continues exactly.
    """
    generator = torch.Generator().manual_seed(seed)
    stream = [index for _ in range(epochs) for index in torch.randperm(len(lengths), generator=generator).tolist()]
    size = batch_size * min(WINDOW_BATCHES, max(len(stream) // (2 * batch_size), 1))
    result: list[int] = []
    for start in range(0, len(stream), size):
        window = sorted(stream[start : start + size], key=lambda index: -lengths[index])
        batches = [window[first : first + batch_size] for first in range(0, len(window), batch_size)]
        order = torch.randperm(len(batches), generator=generator).tolist()
        if len(window) < size:  # a last batch that is not full stays the last
            order = list(range(len(batches)))
        result += [index for batch in order for index in batches[batch]]
    return result


class OrderedDataset(Dataset):
    """The samples of all epochs, one after the other."""

    def __init__(self, samples: Sequence[Sample], indices: Sequence[int]) -> None:
        self.samples, self.indices = samples, indices

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, number: int) -> Sample:
        return self.samples[self.indices[number]]
