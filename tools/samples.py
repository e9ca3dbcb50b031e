"""Print held-out prompts with the teacher's and the student's responses, or write them into a file.

`python -m tools.samples [--write README.md]`
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

from distill.cards import markdown
from distill.cards.document import Data, Table
from distill.core.errors import UserError, run_main
from distill.reporting.inputs import Row, Source, read_table
from tools.table import print_or_write

SAMPLES = Path("metrics/samples.jsonl")
NAME = "samples"
NUM_SAMPLES = 3


def side_by_side(samples: Sequence[Row]) -> Table:
    """A prompt by row with the teacher's and the distilled student's response."""
    rows = [
        [
            Data(sample["messages"][-1]["content"]),
            *(Data(sample["generated"][model]) for model in ("teacher", "distilled")),
        ]
        for sample in samples
    ]
    return Table(["held-out prompt", "teacher", "distilled student"], rows, "lll")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--write", type=Path, metavar="FILE", help="write the samples between the marks in FILE")
    parser.add_argument("--num-samples", type=int, default=NUM_SAMPLES, metavar="N", help="prompts to show")
    arguments = parser.parse_args()
    if arguments.num_samples < 1:
        raise UserError(f"--num-samples must be at least 1, got {arguments.num_samples}.")
    samples = read_table("samples", Source(SAMPLES, "evaluate"))
    print_or_write(markdown.table(side_by_side(samples[: arguments.num_samples])), NAME, arguments.write)


if __name__ == "__main__":
    run_main(main)
