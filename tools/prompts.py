"""Write the shipped prompts, topics and kinds of words in every form: `python -m tools.prompts`.

data/prompts/prompts.jsonl has every topic in every form, data/prompts/kinds.jsonl a word of each kind in every form,
with its kind as `label`.
"""

from pathlib import Path
from typing import Any

import yaml

from distill.core.files import write_rows

TOPICS = Path("data/prompts/topics.yaml")
FORMS = Path("data/prompts/forms.yaml")
PROMPTS = Path("data/prompts/prompts.jsonl")
KINDS = Path("data/prompts/kinds.yaml")
KIND_PROMPTS = Path("data/prompts/kinds.jsonl")

Row = dict[str, Any]


def in_forms(topic: str, forms: dict[str, str], **fields: str) -> list[Row]:
    """The topic in every form, a row a prompt: `id` (topic/form), `topic`, `fields`, `messages`."""
    return [
        {
            "id": f"{topic.lower().replace(' ', '-')}/{form}",
            "topic": topic,
            **fields,
            "messages": [{"role": "user", "content": text.format(topic=topic)}],
        }
        for form, text in forms.items()
    ]


def prompts(topics: dict[str, list[str]], forms: dict[str, str]) -> list[Row]:
    """The rows of all topics, sorted by id."""
    rows = [row for category in topics.values() for topic in category for row in in_forms(topic, forms)]
    return sorted(rows, key=lambda row: row["id"])


def labeled_prompts(kinds: dict[str, list[str]], forms: dict[str, str]) -> list[Row]:
    """The rows of all words, each with its kind as `label`, sorted by id."""
    rows = [row for kind, words in kinds.items() for word in words for row in in_forms(word, forms, label=kind)]
    return sorted(rows, key=lambda row: row["id"])


def main() -> None:
    topics, forms, kinds = (yaml.safe_load(path.read_text(encoding="utf-8")) for path in (TOPICS, FORMS, KINDS))
    for path, rows in (
        (PROMPTS, prompts(topics, forms)),
        (KIND_PROMPTS, labeled_prompts(kinds["kinds"], kinds["forms"])),
    ):
        print(f"{path}: {write_rows(path, rows)} prompts")


if __name__ == "__main__":
    main()
