"""Training samples, settings and a distance between weights."""

import torch

from distill.losses.divergences import Settings, TopK
from distill.params.train import Schedule
from distill.training.dataset import Sample

CE = Settings("cross_entropy", 0.0, 1.0, 0.5, "bucket")


KL = Settings("forward_kl", 0.0, 1.0, 0.5, "bucket")


SCHEDULE = Schedule(
    epochs=1, batch_size=8, gradient_accumulation=1, learning_rate=1e-2, warmup_share=0.0, decay="constant",
    weight_decay=0.0, max_grad_norm=1e9, max_length=64, log_every=1, save_every=100,
)  # fmt: skip


VOCABULARY = 50


def samples(count: int = 8) -> list[Sample]:
    """Ragged samples with targets and unequal weights."""
    generator = torch.Generator().manual_seed(1)
    result = []
    for number in range(count):
        prompt = torch.randint(3, VOCABULARY, (2 + number % 3,), generator=generator).tolist()
        response = [*torch.randint(3, VOCABULARY, (3 + number * 5 % 7,), generator=generator).tolist(), 2]
        best, ids = torch.randn(len(response), VOCABULARY, generator=generator).log_softmax(-1).topk(4)
        top = TopK(ids, best, torch.log1p(-best.exp().sum(-1)), torch.ones(len(response), dtype=torch.bool))
        result.append(Sample(str(number), prompt, response, 0.5 + number % 4, top))
    return result


def furthest(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> float:
    return max(float((one[name] - other[name]).abs().max()) for name in one)
