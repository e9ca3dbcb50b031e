import math
from pathlib import Path

import pytest
import tiny
import torch
from training_samples import CE, KL, SCHEDULE, VOCABULARY, furthest, samples

from distill.losses.divergences import Settings, TopK, total
from distill.modeling import packing
from distill.training import checkpoints, sampler, trainer
from distill.training.dataset import Sample, collate


def trained(folder: Path, data: list[Sample], settings: Settings = KL, **changes: object) -> dict[str, torch.Tensor]:
    """The weights after one step over all samples."""
    model = tiny.model(VOCABULARY, layers=2, spread=0.1)
    schedule = SCHEDULE.model_copy(update=changes)
    steps = math.ceil(len(data) / (schedule.batch_size * schedule.gradient_accumulation))
    trainer.DistillTrainer(
        settings=settings,
        autocast=torch.float32,
        model=model,
        args=trainer.arguments(folder, schedule, steps, seed=0).set_optimizer("sgd", learning_rate=1e-2),
        train_dataset=sampler.Ordered(data, list(range(len(data)))),
    ).train()
    return {name: value.detach() for name, value in model.named_parameters()}


@pytest.mark.parametrize("settings", [CE, KL])
def test_a_step_is_the_same_in_one_batch_and_in_micro_batches(tmp_path, settings):
    whole = trained(tmp_path / "1", samples(), settings)
    start = dict(tiny.model(VOCABULARY, layers=2, spread=0.1).named_parameters())
    assert furthest(whole, start) > 1e-4, "the step moved nothing, so that the comparison would say nothing"
    for size, accumulation in ((4, 2), (2, 4), (1, 8)):
        parts = trained(tmp_path / f"{size}", samples(), settings, batch_size=size, gradient_accumulation=accumulation)
        assert furthest(whole, parts) < 1e-6


def test_the_divisor_is_the_sum_of_weights_times_tokens(tmp_path):
    """One SGD step by hand: w - lr x gradient of (sum of weighted losses / sum of weights)."""
    data = samples()
    model = tiny.model(VOCABULARY, layers=2, spread=0.1)
    batch = collate(data)
    logits = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits[batch["response_mask"]]
    (total(logits, batch["labels"], batch["weights"], None, CE) / batch["weights"].sum()).backward()
    by_hand = {name: value.detach() - 1e-2 * value.grad for name, value in model.named_parameters()}
    assert furthest(by_hand, trained(tmp_path, data, CE)) < 1e-6


def test_padding_changes_nothing(tmp_path):
    long = Sample("long", [3] * 30, [4, 2], 0.0, samples()[0].top and TopK(
        torch.zeros(2, 4, dtype=torch.long), torch.full((2, 4), math.log(0.25)), torch.full((2,), -20.0),
        torch.ones(2, dtype=torch.bool)))  # fmt: skip
    alone = trained(tmp_path / "1", samples(7))
    padded = trained(tmp_path / "2", [*samples(7), long])
    assert furthest(alone, padded) < 1e-6


def test_the_order_holds_each_sample_once_an_epoch_and_depends_on_the_seed_alone():
    lengths = [number % 17 for number in range(101)]
    order = sampler.order(lengths, 4, 3, seed=1)
    assert sorted(order) == sorted(list(range(101)) * 3)
    assert order == sampler.order(lengths, 4, 3, seed=1)
    assert order != sampler.order(lengths, 4, 3, seed=2)


@pytest.mark.parametrize("rows", [6, 8, 14, 30])
def test_a_seed_changes_which_rows_share_a_batch_however_few_they_are(rows):
    def batches(seed: int) -> list[set[int]]:
        order = sampler.order(range(rows), 4, 2, seed)
        return [set(order[start : start + 4]) for start in range(0, len(order), 4)]

    assert len({str(batches(seed)) for seed in range(4)}) > 1


def test_batches_are_of_like_length():
    generator = torch.Generator().manual_seed(0)
    lengths = torch.randint(1, 100, (512,), generator=generator).tolist()
    order = sampler.order(lengths, 8, 1, seed=0)
    batches = [[lengths[index] for index in order[start : start + 8]] for start in range(0, 512, 8)]
    padding = sum(max(batch) * 8 - sum(batch) for batch in batches) / sum(lengths)
    assert padding < 0.15
    assert len({max(batch) for batch in batches[:8]}) > 1


def test_a_checkpoint_that_was_cut_off_is_removed_and_not_resumed_from(tmp_path):
    for step in (2, 10, 20):
        (tmp_path / f"checkpoint-{step}").mkdir()
    for step in (2, 10):
        (tmp_path / f"checkpoint-{step}" / checkpoints.WHOLE).touch()
    assert checkpoints.last_whole_checkpoint(tmp_path) == tmp_path / "checkpoint-10"
    assert not (tmp_path / "checkpoint-20").exists()
    assert checkpoints.last_whole_checkpoint(tmp_path / "none") is None


def test_the_beginning_that_all_rows_share_is_computed_once_in_training(tmp_path, monkeypatch):
    monkeypatch.setattr(packing, "TOKEN_STEP", 1)
    model = tiny.model(VOCABULARY, layers=1)
    data = [Sample(str(number), [3, 4, 5, 6, 7 + number], [8, 2], 1.0, None) for number in range(8)]
    seen = []
    model.get_decoder().register_forward_pre_hook(
        lambda _, __, given: seen.append(tuple(given["input_ids"].shape)), with_kwargs=True
    )
    trainer.DistillTrainer(
        settings=CE,
        autocast=torch.float32,
        model=model,
        args=trainer.arguments(tmp_path, SCHEDULE, 1, seed=0),
        train_dataset=sampler.Ordered(data, list(range(8))),
    ).train()
    assert seen == [(1, 4 + 8 * 3)], seen
    assert model.config.use_cache
