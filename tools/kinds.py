"""Writes data/prompts/kinds.jsonl, a word of each kind in every form, with its label: `python -m tools.kinds`."""

from pathlib import Path
from typing import Any

import yaml

from distill.files import write_rows
from tools.prompts import in_forms

KINDS = Path("data/prompts/kinds.yaml")
PROMPTS = Path("data/prompts/kinds.jsonl")


def prompts(kinds: dict[str, list[str]], forms: dict[str, str]) -> list[dict[str, Any]]:
    """The rows of all words, each with its kind as `label`, sorted by id."""
    rows = [row for kind, words in kinds.items() for word in words for row in in_forms(word, forms, label=kind)]
    return sorted(rows, key=lambda row: row["id"])


def main() -> None:
    source = yaml.safe_load(KINDS.read_text(encoding="utf-8"))
    count = write_rows(PROMPTS, prompts(source["kinds"], source["forms"]))
    print(f"{PROMPTS}: {count} prompts")


if __name__ == "__main__":
    main()
