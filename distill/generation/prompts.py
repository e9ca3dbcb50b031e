"""Prompts as `id`, `topic` and `messages`: from a JSONL file or a folder of texts, and how each is dressed.

Data sets are read by distill/generation/hub_prompts.py.
"""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from distill.core.errors import UserError
from distill.core.files import read_rows
from distill.params.generate import FolderPrompts, JsonlPrompts, Shot

ROLES = ("system", "user", "assistant")
PARAGRAPH_END = re.compile(r"\n\s*\n")
Prompt = dict[str, Any]


def checked(row: dict[str, Any], number: int, source: str) -> Prompt:
    """The row if it is a prompt: id, topic, messages that end with the user's. Raises UserError otherwise."""
    messages = row.get("messages")
    good = (
        all(isinstance(row.get(key), str) and row[key] for key in ("id", "topic"))
        and isinstance(messages, list)
        and messages
        and all(isinstance(turn, dict) and turn.get("role") in ROLES for turn in messages)
        and all(isinstance(turn.get("content"), str) and turn["content"].strip() for turn in messages)
        and messages[-1]["role"] == "user"
    )
    if not good:
        raise UserError(
            f"{source}, row {number} ({row.get('id')!r}) is not a prompt. Each line must be like "
            '{"id": "bees/fact", "topic": "bees", "messages": [{"role": "user", "content": "..."}]}, '
            f"with roles {ROLES} and the user last."
        )
    return row


def from_jsonl(source: JsonlPrompts) -> list[Prompt]:
    """The prompts of a JSONL file by id. Raises UserError for a row that is none, a repeated id and an empty file."""
    rows: dict[str, Prompt] = {}
    for number, row in enumerate(read_rows(Path(source.path), "you or git"), start=1):
        prompt = checked(row, number, source.path)
        if prompt["id"] in rows:
            raise UserError(f"{source.path} has two prompts with the id {prompt['id']!r}; ids must be unique.")
        rows[prompt["id"]] = prompt
    if not rows:
        raise UserError(f"{source.path} has no prompts.")
    return [rows[name] for name in sorted(rows)]


def from_folder(source: FolderPrompts) -> list[Prompt]:
    """A prompt for each chunk of each text of a folder; the file is the topic, so that no text is in two splits."""
    folder = Path(source.path)
    files = sorted(path for path in folder.glob(source.pattern) if path.is_file())
    if not files:
        raise UserError(
            f"{folder} has no file that matches generate.prompts.pattern {source.pattern!r} ('**/*.txt' finds every "
            ".txt file at any depth)."
        )
    prompts = []
    for path in files:
        name = path.relative_to(folder).as_posix()
        try:
            text = path.read_text(encoding="utf-8")
        except UnicodeDecodeError as error:
            raise UserError(
                f"{path} is not UTF-8 text ({error}). Convert it, or narrow generate.prompts.pattern."
            ) from None
        for number, chunk in enumerate(chunks(text, source.chunk_words)):
            content = source.template.replace("{text}", chunk)
            turn = {"role": "user", "content": content}
            prompts.append({"id": f"{name}/{number:04}", "topic": name, "messages": [turn]})
    if not prompts:
        raise UserError(f"the {len(files)} files of {folder} hold no words.")
    return sorted(prompts, key=lambda prompt: prompt["id"])


def chunks(text: str, most_words: int) -> Iterator[str]:
    """The text in pieces of at most `most_words` words: whole paragraphs as far as they fit, longer ones cut."""
    pieces: list[str] = []
    for paragraph in PARAGRAPH_END.split(text):
        words = paragraph.split()
        if len(words) <= most_words:
            pieces.append(paragraph.strip())
        else:
            pieces += [" ".join(words[start : start + most_words]) for start in range(0, len(words), most_words)]
    chunk: list[str] = []
    count = 0
    for piece in filter(None, pieces):
        length = len(piece.split())
        if count + length > most_words:
            yield "\n\n".join(chunk)
            chunk, count = [], 0
        chunk.append(piece)
        count += length
    if chunk:
        yield "\n\n".join(chunk)


def require_labels(prompts: list[Prompt], labels: list[str]) -> None:
    """Raises UserError where a prompt's own `label`, the right answer, is none of these, or some have one and others
    not."""
    given = [prompt for prompt in prompts if "label" in prompt]
    if other := [prompt for prompt in given if prompt["label"] not in labels]:
        raise UserError(
            f"prompt {other[0]['id']!r} has the label {other[0]['label']!r}, which is none of generate.class_labels "
            f"({', '.join(labels)}). Mend the prompt or the list."
        )
    if given and len(given) < len(prompts):
        raise UserError(
            f"{len(given)} of {len(prompts)} prompts have a `label`: give it to all, so that accuracy is measured "
            "against the right labels, or to none, so that it is measured against the teacher's."
        )


def dressed(prompt: Prompt, system_prompt: str | None, few_shot: list[Shot]) -> Prompt:
    """The prompt as it is sent: system prompt, few-shot examples, its own messages.

    A system message of the prompt's own takes the place of `system_prompt`.
    """
    messages = prompt["messages"]
    system = [] if system_prompt is None else [{"role": "system", "content": system_prompt}]
    if messages[0]["role"] == "system":
        system, messages = messages[:1], messages[1:]
    shots = [
        {"role": role, "content": content}
        for shot in few_shot
        for role, content in (("user", shot.user), ("assistant", shot.assistant))
    ]
    return {**prompt, "messages": [*system, *shots, *messages]}
