import math
from pathlib import Path

import pytest
import tiny
import torch
from training_samples import FORWARD_KL, OPTIMIZATION, VOCAB_SIZE, max_difference, training_samples

from distill.losses.logit_loss import CROSS_ENTROPY, LossSettings, logit_loss
from distill.modeling import packing
from distill.targets.distributions import TopK
from distill.training import sampler, trainer
from distill.training.dataset import Sample, collate
from distill.training.trainer import Objective


def trained(
    folder: Path, data: list[Sample], settings: LossSettings = FORWARD_KL, **changes: object
) -> dict[str, torch.Tensor]:
    """The weights after one step over all samples."""
    model = tiny.model(VOCAB_SIZE, layers=2, spread=0.1)
    optimization = OPTIMIZATION.model_copy(update=changes)
    steps = math.ceil(len(data) / (optimization.batch_size * optimization.gradient_accumulation_steps))
    trainer.DistillTrainer(
        Objective(settings),
        torch.float32,
        model=model,
        args=trainer.training_arguments(folder, optimization, steps, seed=0).set_optimizer("sgd", learning_rate=1e-2),
        train_dataset=sampler.OrderedDataset(data, list(range(len(data)))),
    ).train()
    return {name: value.detach() for name, value in model.named_parameters()}


@pytest.mark.parametrize("settings", [CROSS_ENTROPY, FORWARD_KL])
def test_micro_batches_give_the_same_step(tmp_path, settings):
    one_batch = trained(tmp_path / "1", training_samples(), settings)
    start = dict(tiny.model(VOCAB_SIZE, layers=2, spread=0.1).named_parameters())
    assert max_difference(one_batch, start) > 1e-4, "the step moved nothing, so that the comparison would say nothing"
    for size, accumulation in ((4, 2), (2, 4), (1, 8)):
        parts = trained(
            tmp_path / f"{size}",
            training_samples(),
            settings,
            batch_size=size,
            gradient_accumulation_steps=accumulation,
        )
        assert max_difference(one_batch, parts) < 1e-6


def test_a_step_divides_by_weights_times_tokens(tmp_path):
    """One SGD step by hand: w - lr x gradient of (sum of weighted losses / sum of weights)."""
    data = training_samples()
    model = tiny.model(VOCAB_SIZE, layers=2, spread=0.1)
    batch = collate(data)
    logits = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits[batch["response_mask"]]
    (logit_loss(logits, batch["labels"], batch["weights"], None, CROSS_ENTROPY) / batch["weights"].sum()).backward()
    by_hand = {name: value.detach() - 1e-2 * value.grad for name, value in model.named_parameters()}
    assert max_difference(by_hand, trained(tmp_path, data, CROSS_ENTROPY)) < 1e-6


def test_padding_changes_nothing(tmp_path):
    long = Sample("long", [3] * 30, [4, 2], 0.0, training_samples()[0].targets and TopK(
        torch.zeros(2, 4, dtype=torch.long), torch.full((2, 4), math.log(0.25)), torch.full((2,), -20.0),
        torch.ones(2, dtype=torch.bool)))  # fmt: skip
    alone = trained(tmp_path / "1", training_samples(7))
    padded = trained(tmp_path / "2", [*training_samples(7), long])
    assert max_difference(alone, padded) < 1e-6


def test_a_shared_prefix_is_computed_once(tmp_path, monkeypatch):
    monkeypatch.setattr(packing, "TOKEN_STEP", 1)
    model = tiny.model(VOCAB_SIZE, layers=1)
    data = [Sample(str(number), [3, 4, 5, 6, 7 + number], [8, 2], 1.0, None) for number in range(8)]
    seen = []
    model.get_decoder().register_forward_pre_hook(
        lambda _, __, given: seen.append(tuple(given["input_ids"].shape)), with_kwargs=True
    )
    trainer.DistillTrainer(
        Objective(CROSS_ENTROPY),
        torch.float32,
        model=model,
        args=trainer.training_arguments(tmp_path, OPTIMIZATION, 1, seed=0),
        train_dataset=sampler.OrderedDataset(data, list(range(8))),
    ).train()
    assert seen == [(1, 4 + 8 * 3)], seen
    assert model.config.use_cache
