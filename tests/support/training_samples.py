"""Training samples, losses and optimization of tests, and a distance between weights."""

from collections.abc import Mapping
from pathlib import Path

import torch

from distill.losses.logit_loss import LossSettings
from distill.params.train import Optimization
from distill.targets.distributions import TopK
from distill.training.dataset import Sample
from distill.training.fit import FitConfig

FORWARD_KL = LossSettings("forward_kl", ce_weight=0.0, tail="bucket")
OPTIMIZATION = Optimization(
    num_train_epochs=1, batch_size=8, gradient_accumulation_steps=1, learning_rate=1e-2, warmup_ratio=0.0,
    lr_scheduler_type="constant", weight_decay=0.0, max_grad_norm=1e9, max_length=64, logging_steps=1, save_steps=100,
)  # fmt: skip
VOCAB_SIZE = 50


def training_samples(count: int = 8) -> list[Sample]:
    """Ragged samples with targets and unequal weights."""
    generator = torch.Generator().manual_seed(1)
    result = []
    for number in range(count):
        prompt = torch.randint(3, VOCAB_SIZE, (2 + number % 3,), generator=generator).tolist()
        response = [*torch.randint(3, VOCAB_SIZE, (3 + number * 5 % 7,), generator=generator).tolist(), 2]
        best, ids = torch.randn(len(response), VOCAB_SIZE, generator=generator).log_softmax(-1).topk(4)
        targets = TopK(ids, best, torch.log1p(-best.exp().sum(-1)), torch.ones(len(response), dtype=torch.bool))
        result.append(Sample(str(number), prompt, response, 0.5 + number % 4, targets))
    return result


def fit_config(folder: Path, **changes: object) -> FitConfig:
    """The training of a tiny model in a folder; `changes` are of its optimization."""
    return FitConfig(
        name="tiny", seed=0, optimization=OPTIMIZATION.model_copy(update=changes), loss=FORWARD_KL, adapter=None,
        dtype=torch.float32, checkpoints=folder / "checkpoints", curves=folder / "curves", compile=False,
        report_to=None, validation_loss=lambda _: 0.0,
    )  # fmt: skip


def max_difference(first: Mapping[str, torch.Tensor], second: Mapping[str, torch.Tensor]) -> float:
    """The largest absolute difference between two sets of weights."""
    return max(float((first[name] - second[name]).abs().max()) for name in first)
