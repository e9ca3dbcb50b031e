"""Writes data/prompts/prompts.jsonl, every topic in every question form: `python -m tools.prompts`."""

from pathlib import Path
from typing import Any

import yaml

from distill.files import write_rows

TOPICS = Path("data/prompts/topics.yaml")
FORMS = Path("data/prompts/forms.yaml")
PROMPTS = Path("data/prompts/prompts.jsonl")


def prompts(topics: dict[str, list[str]], forms: dict[str, str]) -> list[dict[str, Any]]:
    """One row a prompt: `id` (topic/form), `topic`, `messages`; sorted by id."""
    rows = [
        {
            "id": f"{topic.lower().replace(' ', '-')}/{form}",
            "topic": topic,
            "messages": [{"role": "user", "content": text.format(topic=topic)}],
        }
        for category in topics.values()
        for topic in category
        for form, text in forms.items()
    ]
    return sorted(rows, key=lambda row: row["id"])


def main() -> None:
    topics = yaml.safe_load(TOPICS.read_text(encoding="utf-8"))
    forms = yaml.safe_load(FORMS.read_text(encoding="utf-8"))
    count = write_rows(PROMPTS, prompts(topics, forms))
    print(f"{PROMPTS}: {count} prompts")


if __name__ == "__main__":
    main()
