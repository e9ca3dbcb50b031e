"""Finds the layers that a student should keep: `python -m tools.select_layers --keep 5`.

Removes one layer of the teacher after the other, each time the one without which the teacher's own answers
stay most likely, until so many are left (greedy backward elimination). Layers interact: the seven found so
start the student four nats a token nearer to the teacher than seven evenly spaced ones. The list goes into
init.layers of params.yaml, with train.progressive: null or intermediate students that keep these layers too.
"""

import argparse
import random
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm
from transformers import PreTrainedModel

from distill.core.errors import UserError, run_main
from distill.core.files import read_rows
from distill.modeling import loading, runtime
from distill.modeling.chat import Example, encode
from distill.modeling.scoring import negative_log_likelihood
from distill.params.loading import load_params

TRAIN = Path("data/clean/train.jsonl")


def loss(network: PreTrainedModel, layers: list[Any], examples: list[Example]) -> float:
    """Nats per token of the examples' responses with these layers alone."""
    decoder = network.get_decoder()
    decoder.layers = torch.nn.ModuleList(layers)
    decoder.config.num_hidden_layers = len(layers)
    return negative_log_likelihood(network, examples, 1 << 20) / sum(len(example.response) for example in examples)


def eliminate(network: PreTrainedModel, examples: list[Example], keep: int) -> list[int]:
    """The indices of the `keep` layers that greedy backward elimination leaves."""
    every = list(network.get_decoder().layers)
    if not 1 <= keep <= len(every):
        raise UserError(f"--keep: the teacher has {len(every)} layers, given {keep}.")
    left = list(range(len(every)))
    network.config.use_cache = False  # a layer knows its old place, which a cache would go by
    with tqdm(total=len(every) - keep, desc="layers removed") as bar:
        while len(left) > keep:
            without = {gone: loss(network, [every[i] for i in left if i != gone], examples) for gone in left}
            worst = min(without, key=lambda gone: (without[gone], gone))
            left.remove(worst)
            bar.update()
            tqdm.write(f"{len(left)} layers, {without[worst]:.3f} nats per token: {left}")
    return left


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--keep", type=int, required=True, help="layers to keep")
    parser.add_argument("--samples", type=int, default=24, help="training rows to measure on")
    arguments = parser.parse_args()
    params = load_params()
    runtime.prepare(params.runtime.threads, params.data_seed)
    rows = list(read_rows(TRAIN, "stage clean"))
    random.Random(params.data_seed).shuffle(rows)
    if params.init.source != "pruned":
        raise UserError(f"init.source must be pruned, got {params.init.source}: there are no layers to select.")
    spec = params.local_teacher(params.init.teacher)
    dtype = runtime.compute_dtype(params.runtime.dtype)
    network, tokenizer = loading.load_teacher(spec, dtype)
    examples = [encode(tokenizer, row) for row in rows[: arguments.samples]]
    print(eliminate(network, examples, arguments.keep))


if __name__ == "__main__":
    run_main(main)
