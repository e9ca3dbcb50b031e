"""What a training's speed is reported against."""

import re

import tiny
import torch
from torch.utils.flop_counter import FlopCounterMode

from distill.modeling import loading, packing
from distill.modeling.batches import pad_batch
from distill.modeling.forward import response_logits, response_only_parameters
from distill.training import fit, throughput
from distill.training.dataset import Sample

CPU = torch.device("cpu")


def test_flops_equal_torchs_count_without_attention(monkeypatch):
    monkeypatch.setattr(packing, "TOKEN_STEP", 1)  # what fills a shape is computed, and counts for nothing
    model = tiny.model(200, layers=3)
    pairs = [([3, 4, 5], [6, 7, 2]), ([8, 9], [10, 11, 12, 2])]
    model.set_attn_implementation("eager")
    with FlopCounterMode(display=False) as counter:
        response_logits(model, pad_batch(pairs)).sum().backward()
    products = counter.get_flop_counts()["Global"]
    attention = sum(count for name, count in products.items() if "bmm" in str(name))
    weights = sum(part.numel() for part in model.parameters() if part.dim() == 2)
    expected = throughput.training_flops(weights, response_only_parameters(model), 12, 7)
    first = 2 * 12 * 32 * (32 + 16 + 16)  # the first layer's input asks for no gradient ... of the ids
    counted = sum(products.values()) - attention
    assert counted in (expected, expected - first)
    small = loading.parameter_count(model) - weights
    assert small / weights < 0.01, "norms are no matrices, and count for nothing"


def test_flops_skip_padding_and_shared_prefixes():
    model = tiny.model(100, layers=1)
    late = response_only_parameters(model)
    rest = sum(part.numel() for part in model.parameters()) - late
    batch = [Sample("a", [1, 2, 3], [4, 5], 1.0, None), Sample("b", [1, 2, 6, 7], [8], 1.0, None)]
    assert fit.training_flops(model, batch, 2) == 6 * (rest * (5 + 5 - 2) + late * 3)
    assert fit.training_flops(model, batch, 1) == 6 * (rest * (5 + 5) + late * 3), "rows of other batches share nothing"


def test_the_report_has_rate_mfu_and_memory():
    line = throughput.report(10**9, 500, 2.0, torch.float32, CPU)
    mfu, rate, memory = map(
        float, re.search(r"250 response tokens/s, (\d+)% of the (\d+) .* ([\d.]+) GB", line).groups()
    )
    assert rate > 0
    assert abs(mfu - 100 * 0.5e9 / (rate * 1e9)) <= 1
    assert 0.05 < memory < 100


def test_a_large_tensor_raises_the_peak():
    before = throughput.peak_memory(CPU)
    block = torch.ones(before // 4 + 2**26)
    assert throughput.peak_memory(CPU) >= before
    assert throughput.peak_memory(CPU) >= 4 * block.numel()
