"""Latency at batch 1: time to the first token and decoding speed, models interleaved run by run."""

import time
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from transformers import DynamicCache, PreTrainedModel

from distill.core.files import Row
from distill.params.evaluate import Latency


@dataclass(frozen=True)
class Timing:
    """One response: seconds to the first token, seconds of all further tokens, and the number of these."""

    first: float
    rest: float
    rest_tokens: int


@torch.inference_mode()
def time_response(model: PreTrainedModel, prompt: torch.Tensor, new_tokens: int) -> Timing:
    """Times `new_tokens` greedy tokens after a prompt [1, tokens]; an end of turn does not stop it."""
    cache = DynamicCache(config=model.config)
    ids = prompt
    times = [_now(model)]
    for _ in range(new_tokens):
        ids = model(input_ids=ids, past_key_values=cache, logits_to_keep=1).logits[:, -1].argmax(-1, keepdim=True)
        times.append(_now(model))
    return Timing(times[1] - times[0], times[-1] - times[1], new_tokens - 1)


def time_models(models: Mapping[str, PreTrainedModel], settings: Latency) -> dict[str, list[Timing]]:
    """`num_runs` timings of each model after `num_warmup_runs`, in turn: a noisy machine slows all models alike."""
    timings: dict[str, list[Timing]] = {name: [] for name in models}
    for number in range(settings.num_warmup_runs + settings.num_runs):
        for name, model in models.items():
            vocab_size = model.config.get_text_config().vocab_size
            prompt = (torch.arange(settings.prompt_tokens, device=model.device) * 37 % vocab_size)[None]
            timing = time_response(model, prompt, settings.new_tokens)
            if number >= settings.num_warmup_runs:
                timings[name].append(timing)
    return timings


def measure_latency(models: Mapping[str, PreTrainedModel], settings: Latency) -> Row:
    """metrics/latency.json: the timings of all models, and the gain of `distilled` over `teacher`."""
    timings = time_models(models, settings)
    gain = median_seconds(timings["teacher"]) / median_seconds(timings["distilled"])
    return {
        "models": {name: summarize_timings(runs) for name, runs in timings.items()},
        "latency_gain": round(gain, 3),
        "gain_is": "median milliseconds of a response at batch 1, teacher over distilled",
        "prompt_tokens": settings.prompt_tokens,
        "new_tokens": settings.new_tokens,
        "num_runs": settings.num_runs,
    }


def summarize_timings(timings: list[Timing]) -> dict[str, dict[str, float]]:
    """Median and quartiles of the first token (ms), of decoding (tokens/s) and of the response (ms)."""
    return {
        "time_to_first_token_ms": _quartiles([timing.first * 1000 for timing in timings]),
        "decode_tokens_per_s": _quartiles([timing.rest_tokens / timing.rest for timing in timings]),
        "response_ms": _quartiles([(timing.first + timing.rest) * 1000 for timing in timings]),
    }


def median_seconds(timings: list[Timing]) -> float:
    """Median seconds of a response."""
    return float(np.median([timing.first + timing.rest for timing in timings]))


def _quartiles(values: list[float]) -> dict[str, float]:
    low, median, high = np.quantile(values, [0.25, 0.5, 0.75])
    return {"median": round(float(median), 3), "low": round(float(low), 3), "high": round(float(high), 3)}


def _now(model: PreTrainedModel) -> float:
    if model.device.type == "cuda":
        torch.cuda.synchronize(model.device)
    return time.perf_counter()
