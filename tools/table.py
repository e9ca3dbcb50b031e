"""Prints the result table, or writes it into a file: `python -m tools.table [--write README.md]`."""

import argparse
from pathlib import Path

from distill.cards import markdown
from distill.cards.markdown import BEGIN, END, between
from distill.core.errors import UserError, run_main
from distill.core.files import read_json, write_text
from distill.reporting import report

METRICS = Path("metrics/metrics.json")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split(":")[0])
    parser.add_argument("--write", type=Path, metavar="FILE", help="put the table between the marks in FILE")
    file = parser.parse_args().write
    metrics = read_json(METRICS, "stage evaluate")
    report.require(metrics, METRICS, "evaluate", report.NUMBERS["metrics"])
    block = f"{markdown.table(report.results(metrics))}\n\n{markdown.table(report.goals(metrics))}"
    if file is None:
        print(block)
    elif not file.is_file():
        raise UserError(f"{file} is missing: --write takes a file with lines {BEGIN} and {END}.")
    else:
        write_text(file, between(file.read_text(encoding="utf-8"), block, str(file)))
        print(f"{file}: the table of {METRICS} is written")


if __name__ == "__main__":
    run_main(main)
