"""Throughput of a training, compared with the machine's matmul rate, and its memory."""

import resource
import sys
import time

import torch

SIDE, TRIALS = 2048, 5  # of the square matrices whose product is timed


def training_flops(parameters: int, late: int, tokens: int, predicted: int) -> int:
    """The floating-point operations of forward and backward: 6 for each weight and token (Kaplan et al. 2020).

    `late` of them are needed for the `predicted` tokens only (`forward.response_only_parameters`); all others meet all
    `tokens`.
    Attention itself is left out: for short rows it is negligible.
    """
    return 6 * ((parameters - late) * tokens + late * predicted)


def matmul_rate(dtype: torch.dtype, device: torch.device) -> float:
    """Operations a second of this process's matrix products, the best of TRIALS. Training is compared with it."""
    left, right = (torch.ones(SIDE, SIDE, dtype=dtype, device=device) for _ in range(2))
    best = 0.0
    for _ in range(TRIALS + 1):  # the first warms up
        started = time.perf_counter()
        left @ right
        if device.type == "cuda":
            torch.cuda.synchronize()
        best = max(best, 2 * SIDE**3 / (time.perf_counter() - started))
    return best


def peak_memory(device: torch.device) -> int:
    """The most bytes that the process has held: of the GPU where it computes on one, else of main memory."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated()
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def report(flops: int, response_tokens: int, seconds: float, dtype: torch.dtype, device: torch.device) -> str:
    """One line for people: response tokens a second, the fraction of the machine's matmul rate (MFU), peak memory."""
    rate = matmul_rate(dtype, device)
    return (
        f"{response_tokens / seconds:.0f} response tokens/s, {flops / seconds / rate:.0%} of the {rate / 1e9:.0f} "
        f"GFLOP/s that a matrix product reaches here (MFU), {peak_memory(device) / 1e9:.1f} GB at most"
    )
