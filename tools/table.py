"""Print the result table, or write it into a file: `python -m tools.table [--write README.md]`."""

import argparse
from pathlib import Path

from distill.cards import markdown
from distill.core.errors import UserError, run_main
from distill.core.files import write_text
from distill.reporting import main_table
from distill.reporting.inputs import Source, read_checked

METRICS = Path("metrics/metrics.json")
NAME = "table"


def print_or_write(block: str, name: str, file: Path | None) -> None:
    """Prints the block, or writes it between the marks of this name in a file.

    Raises UserError if the file or a mark is missing.
    """
    if file is None:
        print(block)
        return
    if not file.is_file():
        begin, end = markdown.marks(name)
        raise UserError(f"{file} is missing. --write takes a file with the lines {begin} and {end}.")
    write_text(file, markdown.between(file.read_text(encoding="utf-8"), block, name, str(file)))
    print(f"{file}: {name} written")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split(":")[0])
    parser.add_argument("--write", type=Path, metavar="FILE", help="write the table between the marks in FILE")
    file = parser.parse_args().write
    metrics = read_checked("metrics", Source(METRICS, "evaluate"))
    tables = [main_table.results(metrics), main_table.goals(metrics)]
    print_or_write("\n\n".join(map(markdown.table, tables)), NAME, file)


if __name__ == "__main__":
    run_main(main)
