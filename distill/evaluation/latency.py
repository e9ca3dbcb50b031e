"""Latency at batch 1: time to the first token and speed of decoding, models interleaved run by run."""

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from transformers import DynamicCache


@dataclass(frozen=True)
class Run:
    """One answer: seconds to the first token, and for all tokens after it."""

    first: float
    rest: float
    tokens: int  # after the first


@torch.inference_mode()
def answer(model: Any, prompt: torch.Tensor, new_tokens: int) -> Run:
    """Times `new_tokens` greedy tokens after a prompt [1, tokens], end of turn or not."""
    cache = DynamicCache(config=model.config)
    ids = prompt
    times = [_now(model)]
    for _ in range(new_tokens):
        ids = model(input_ids=ids, past_key_values=cache, logits_to_keep=1).logits[:, -1].argmax(-1, keepdim=True)
        times.append(_now(model))
    return Run(times[1] - times[0], times[-1] - times[1], new_tokens - 1)


def measure(
    models: Mapping[str, Any], prompt_tokens: int, new_tokens: int, warmup: int, runs: int
) -> dict[str, list[Run]]:
    """`runs` runs of each model after `warmup` ones, all models in turn, so that a noisy machine hurts all alike."""
    result: dict[str, list[Run]] = {name: [] for name in models}
    for number in range(warmup + runs):
        for name, model in models.items():
            vocabulary = model.config.get_text_config().vocab_size
            prompt = (torch.arange(prompt_tokens, device=model.device) * 37 % vocabulary)[None]
            run = answer(model, prompt, new_tokens)
            if number >= warmup:
                result[name].append(run)
    return result


def summary(runs: list[Run]) -> dict[str, dict[str, float]]:
    """Median, and the quartiles as low and high, of first token (ms), decoding (tokens/s) and whole answer (ms)."""
    return {
        "time_to_first_token_ms": _quartiles([run.first * 1000 for run in runs]),
        "decode_tokens_per_s": _quartiles([run.tokens / run.rest for run in runs]),
        "response_ms": _quartiles([(run.first + run.rest) * 1000 for run in runs]),
    }


def median_seconds(runs: list[Run]) -> float:
    """Median seconds of a whole answer."""
    return float(np.median([run.first + run.rest for run in runs]))


def _quartiles(values: list[float]) -> dict[str, float]:
    low, median, high = np.quantile(values, [0.25, 0.5, 0.75])
    return {"median": round(float(median), 3), "low": round(float(low), 3), "high": round(float(high), 3)}


def _now(model: Any) -> float:
    if model.device.type == "cuda":
        torch.cuda.synchronize(model.device)
    return time.perf_counter()
