"""Writes data/prompts/prompts.jsonl, every topic in every question form: `python -m tools.prompts`."""

from pathlib import Path
from typing import Any

import yaml

from distill.files import write_rows

TOPICS = Path("data/prompts/topics.yaml")
FORMS = Path("data/prompts/forms.yaml")
PROMPTS = Path("data/prompts/prompts.jsonl")


def in_forms(topic: str, forms: dict[str, str], **fields: str) -> list[dict[str, Any]]:
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


def prompts(topics: dict[str, list[str]], forms: dict[str, str]) -> list[dict[str, Any]]:
    """The rows of all topics, sorted by id."""
    rows = [row for category in topics.values() for topic in category for row in in_forms(topic, forms)]
    return sorted(rows, key=lambda row: row["id"])


def main() -> None:
    topics = yaml.safe_load(TOPICS.read_text(encoding="utf-8"))
    forms = yaml.safe_load(FORMS.read_text(encoding="utf-8"))
    count = write_rows(PROMPTS, prompts(topics, forms))
    print(f"{PROMPTS}: {count} prompts")


if __name__ == "__main__":
    main()
