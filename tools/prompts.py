"""Writes data/prompts/prompts.jsonl, topics x question forms: `python -m tools.prompts`.

Each topic is asked FORMS_PER_TOPIC of the forms; the window moves on by one form from topic to topic, so
that every form meets topics of every category.
"""

from pathlib import Path
from typing import Any

import yaml

from distill.files import write_rows

TOPICS = Path("data/prompts/topics.yaml")
FORMS = Path("data/prompts/forms.yaml")
PROMPTS = Path("data/prompts/prompts.jsonl")
FORMS_PER_TOPIC = 8


def prompts(topics: dict[str, list[str]], forms: dict[str, str], forms_per_topic: int) -> list[dict[str, Any]]:
    """One row a prompt: `id` (topic/form), `topic`, `messages`; sorted by id."""
    names = list(forms)
    rows = []
    for number, topic in enumerate(topic for category in topics.values() for topic in category):
        for step in range(forms_per_topic):
            form = names[(number + step) % len(names)]
            content = forms[form].format(topic=topic)
            rows.append(
                {
                    "id": f"{topic.lower().replace(' ', '-')}/{form}",
                    "topic": topic,
                    "messages": [{"role": "user", "content": content}],
                }
            )
    return sorted(rows, key=lambda row: row["id"])


def main() -> None:
    topics = yaml.safe_load(TOPICS.read_text(encoding="utf-8"))
    forms = yaml.safe_load(FORMS.read_text(encoding="utf-8"))
    count = write_rows(PROMPTS, prompts(topics, forms, FORMS_PER_TOPIC))
    print(f"{PROMPTS}: {count} prompts")


if __name__ == "__main__":
    main()
