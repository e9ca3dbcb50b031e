"""Prompts with `id`, `topic` and `messages`, read from a JSONL file or a folder of texts.

Hugging Face data sets are read by distill/generation/hub_prompts.py.
"""

import hashlib
import re
from collections.abc import Iterator
from pathlib import Path

from distill.core.errors import UserError
from distill.core.files import Row, read_rows
from distill.core.text import is_text, split_by_words, words
from distill.generation.conversations import not_a_prompt, prompt_of_row
from distill.params.generate import FewShotExample, FolderPrompts, JsonlPrompts
from distill.params.teachers import Teacher

PARAGRAPH_END = re.compile(r"\n\s*\n")
Prompt = Row


def from_jsonl(source: JsonlPrompts) -> list[Prompt]:
    """The prompts of a JSONL file by id; equal prompts without an id are one.

    Raises UserError for an invalid row, a repeated id and an empty file.
    """
    prompts: dict[str, Prompt] = {}
    num_repeated = 0
    for number, row in enumerate(read_rows(Path(source.path), "you or git"), start=1):
        try:
            prompt = prompt_of_row(row)
        except ValueError as error:
            raise not_a_prompt(f"{source.path}, row {number} ({ascii(row.get('id'))[:60]})", str(error)) from None
        if prompt["id"] not in prompts:
            prompts[prompt["id"]] = prompt
        elif "id" in row:
            raise UserError(f"ids in {source.path} must be unique, got two prompts with the id {prompt['id']!r}.")
        else:
            num_repeated += 1
    if not prompts:
        raise UserError(f"{source.path} has no prompts.")
    if num_repeated:
        print(f"{source.path}: {len(prompts)} prompts; {num_repeated} rows that repeat one skipped")
    return [prompts[name] for name in sorted(prompts)]


def from_folder(source: FolderPrompts) -> list[Prompt]:
    """One prompt for each chunk of each text in a folder. The file is the topic, so no text is in two splits."""
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
        if not is_text(name):
            raise UserError(
                f"the name of {name!a} in {folder} must be UTF-8, since it is the topic of prompts. Rename it."
            )
        try:
            text = path.read_text(encoding="utf-8")
        except UnicodeDecodeError as error:
            raise UserError(
                f"{path} must be UTF-8 text, got {error}. Convert it, or narrow generate.prompts.pattern."
            ) from None
        for number, chunk in enumerate(chunks(text, source.chunk_words)):
            turn = {"role": "user", "content": source.template.replace("{text}", chunk)}
            prompts.append({"id": f"{name}/{number:04}", "topic": name, "messages": [turn]})
    if not prompts:
        raise UserError(f"the {len(files)} files of {folder} contain no words.")
    return sorted(prompts, key=lambda prompt: prompt["id"])


def chunks(text: str, max_words: int) -> Iterator[str]:
    """The text in chunks of at most `max_words` words: complete paragraphs where they fit, longer ones split."""
    pieces: list[str] = []
    for paragraph in PARAGRAPH_END.split(text):
        if len(words(paragraph)) <= max_words:
            pieces.append(paragraph.strip())
        else:
            pieces += split_by_words(paragraph, max_words)
    chunk: list[str] = []
    count = 0
    for piece in filter(None, pieces):
        length = len(words(piece))
        if chunk and count + length > max_words:
            yield "\n\n".join(chunk)
            chunk, count = [], 0
        chunk.append(piece)
        count += length
    if chunk:
        yield "\n\n".join(chunk)


def check_labels(prompts: list[Prompt], class_labels: list[str]) -> None:
    """Raises UserError if a prompt's `label`, the right class, is unknown, or if only some prompts have one."""
    labeled = [prompt for prompt in prompts if "label" in prompt]
    if unknown := [prompt for prompt in labeled if prompt["label"] not in class_labels]:
        raise UserError(
            f"the label of prompt {unknown[0]['id']!r} must be one of generate.class_labels "
            f"({', '.join(class_labels)}), got {unknown[0]['label']!r}. Fix the prompt or the list."
        )
    if labeled and len(labeled) < len(prompts):
        raise UserError(
            f"all prompts or none must have a `label`, got {len(labeled)} of {len(prompts)}. With labels accuracy is "
            "measured against them, without labels against the teacher's."
        )


def with_context(prompt: Prompt, system_prompt: str | None, few_shot: list[FewShotExample]) -> Prompt:
    """The prompt as it is sent: system prompt, few-shot examples, its messages.

    A system message of the prompt replaces `system_prompt`.
    """
    messages = prompt["messages"]
    system = [] if system_prompt is None else [{"role": "system", "content": system_prompt}]
    if messages[0]["role"] == "system":
        system, messages = messages[:1], messages[1:]
    examples = [
        {"role": role, "content": content}
        for example in few_shot
        for role, content in (("user", example.user), ("assistant", example.assistant))
    ]
    return {**prompt, "messages": [*system, *examples, *messages]}


def divide_prompts(prompts: list[Prompt], teachers: list[Teacher], seed: int) -> dict[str, list[Prompt]]:
    """The prompts of each teacher by name.

    A teacher with a prompt_fraction of 1 gets all. The others divide the prompts: each gets its own interval of a
    seeded hash, so a prompt keeps its teacher when prompts are added.
    """
    positions = {prompt["id"]: _unit_hash(f"{seed}/{prompt['id']}") for prompt in prompts}
    result: dict[str, list[Prompt]] = {}
    start = 0.0
    for teacher in teachers:
        if teacher.prompt_fraction == 1:
            result[teacher.name] = prompts
            continue
        end = start + teacher.prompt_fraction
        result[teacher.name] = [prompt for prompt in prompts if start <= positions[prompt["id"]] < end]
        start = end
    return result


def _unit_hash(text: str) -> float:
    """A hash of the text in [0, 1)."""
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") / 2**64
