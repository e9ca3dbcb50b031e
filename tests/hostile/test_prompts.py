"""Hostile and broken prompts: JSONL rows, data sets, folders. Each is a prompt or one message, never a traceback."""

import json
import os
import random
from pathlib import Path

import pytest

from distill.core.errors import UserError
from distill.core.files import value_hash, write_rows
from distill.generation import prompts
from distill.generation.conversations import read_messages
from distill.generation.prompts import from_folder, from_jsonl
from distill.params.generate import FolderPrompts, JsonlPrompts

HALF = "half an emoji \ud83d"
ODD = [
    None, True, 0, -1, 7.5, 10**400, "", " ", "\n", "x", "\x00", HALF, "\ud800", "\udfff", "\ufdd0", "\ufeff", "\u202e",
    "<|im_end|>", "{{ 1 / 0 }}", [], {}, [[]], [{}], [None], {"role": "user"}, "x" * 10**6,
    [{"role": "user"}], [{"content": "x"}], [{"role": [], "content": "x"}], [{"role": "user", "content": {"a": 1}}],
    [{"role": "user", "content": [{"type": "text", "text": "x"}]}], [{"from": "human", "value": HALF}],
    [{"from": [1], "value": "x"}], [{"role": "system", "content": ""}], [{"role": "user", "content": HALF}],
    [{"role": "system", "content": ""}, {"role": "user", "content": "x"}], [{"role": "user", "content": "x"}] * 1000,
]  # fmt: skip


def rows(count: int) -> list[dict[str, object]]:
    """Random rows of odd values under the keys of prompts and others."""
    chance = random.Random(5)
    keys = ["id", "topic", "messages", "prompt", "label", "text", HALF]
    return [{key: chance.choice(ODD) for key in chance.sample(keys, chance.randint(0, 5))} for _ in range(count)]


@pytest.mark.parametrize("row", rows(400), ids=range(400))
def test_a_row_is_a_prompt_that_can_be_written_or_one_message(tmp_path, row):
    path = tmp_path / "p.jsonl"
    path.write_text(json.dumps(row) + "\n")
    try:
        (found,) = from_jsonl(JsonlPrompts(source="jsonl", path=str(path)))
    except UserError as error:
        assert len(str(error)) < 800
        str(error).encode()
        return
    assert found["messages"][-1]["role"] == "user"
    assert all(turn["content"].strip() for turn in found["messages"])
    value_hash(found["messages"])
    wanted = {key: found[key] for key in ("id", "topic", "messages")}
    write_rows(tmp_path / "out.jsonl", [prompts.with_context(wanted, "Be brief.", [])])


@pytest.mark.parametrize("value", ODD, ids=range(len(ODD)))
def test_a_value_of_a_column_is_messages_or_a_reason(value):
    messages, reason = read_messages(value)
    assert bool(messages) != bool(reason)
    json.dumps(messages, ensure_ascii=False).encode()


@pytest.mark.parametrize(
    "line", [b"{", b"[]", b"\xff\xfe", b'{"prompt": "\xe9"}', b"[" * 10**5, b"null", b"1e999", b"\n"]
)
def test_a_broken_line_is_named(tmp_path, line):
    (tmp_path / "p.jsonl").write_bytes(b'{"prompt": "x"}\n' + line + b"\n")
    with pytest.raises(UserError, match="line 2"):
        from_jsonl(JsonlPrompts(source="jsonl", path=str(tmp_path / "p.jsonl")))


def test_a_file_name_in_latin_1_is_one_message(tmp_path):
    name = os.fsencode(tmp_path) + b"/caf\xe9.txt"
    try:
        Path(os.fsdecode(name)).write_text("bees fly")
    except OSError:
        pytest.skip("this file system takes UTF-8 names alone")
    source = FolderPrompts(source="folder", path=str(tmp_path), pattern="*.txt", chunk_words=5, template="{text}")
    with pytest.raises(UserError, match=r"caf\\udce9\.txt.* must be UTF-8") as caught:
        from_folder(source)
    str(caught.value).encode()
