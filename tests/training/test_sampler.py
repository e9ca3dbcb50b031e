import pytest
import torch

from distill.training import sampler


def test_order_depends_on_the_seed_alone():
    lengths = [number % 17 for number in range(101)]
    order = sampler.training_order(lengths, 4, 3, seed=1)
    assert sorted(order) == sorted(list(range(101)) * 3)
    assert order == sampler.training_order(lengths, 4, 3, seed=1)
    assert order != sampler.training_order(lengths, 4, 3, seed=2)


@pytest.mark.parametrize("rows", [6, 8, 14, 30])
def test_a_seed_changes_the_batches_of_few_rows(rows):
    def batches(seed: int) -> list[set[int]]:
        order = sampler.training_order(range(rows), 4, 2, seed)
        return [set(order[start : start + 4]) for start in range(0, len(order), 4)]

    assert len({str(batches(seed)) for seed in range(4)}) > 1


def test_batches_hold_similar_lengths():
    generator = torch.Generator().manual_seed(0)
    lengths = torch.randint(1, 100, (512,), generator=generator).tolist()
    order = sampler.training_order(lengths, 8, 1, seed=0)
    batches = [[lengths[index] for index in order[start : start + 8]] for start in range(0, 512, 8)]
    padding = sum(max(batch) * 8 - sum(batch) for batch in batches) / sum(lengths)
    assert padding < 0.15
    assert len({max(batch) for batch in batches[:8]}) > 1
