"""Speed and memory on this machine, written into metrics/bench.json: `python -m tools.bench PART`.

generate  queries of an API, compared with the bare SDK
clean     stage clean on made-up rows
train     a training, compared with TRL's GKDTrainer
"""

import argparse
import json

from distill.core.errors import run_main
from tools.bench.clean import measure_clean
from tools.bench.generate import measure_generate
from tools.bench.results import write_section
from tools.bench.train import Options, measure_train


def parse() -> argparse.Namespace:
    """The part and its options."""
    parser = argparse.ArgumentParser(
        prog="python -m tools.bench", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parts = parser.add_subparsers(dest="part", required=True, metavar="PART")
    generate = parts.add_parser("generate", help="requests a second and growth of memory")
    generate.add_argument("--requests", type=int, default=5000, help="for the speed (default: 5000)")
    generate.add_argument("--rows", type=int, default=100_000, help="for the memory; 0: skip (default: 100000)")
    clean = parts.add_parser("clean", help="time and peak memory")
    clean.add_argument("rows", type=int, nargs="+", help="numbers of rows, one run each, such as 100000 1000000")
    train = parts.add_parser("train", help="tokens a second, peak memory and held-out KL")
    train.add_argument("--steps", type=int, default=40, help="optimiser steps of each run (default: 40)")
    train.add_argument("--warmup", type=int, default=5, help="steps before the clock starts (default: 5)")
    train.add_argument("--rounds", type=int, default=2, help="runs of each trainer, in turn (default: 2)")
    train.add_argument("--layers", type=int, default=8, help="of the student with the full vocabulary (default: 8)")
    train.add_argument("--no-trl", action="store_true", help="leave TRL out")
    return parser.parse_args()


def main() -> None:
    options = parse()
    if options.part == "generate":
        result = measure_generate(options.requests, options.rows)
    elif options.part == "clean":
        result = measure_clean(options.rows)
    else:
        result = measure_train(
            Options(options.steps, options.warmup, options.rounds, options.layers, trl=not options.no_trl)
        )
    write_section(options.part, result)
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    run_main(main)
