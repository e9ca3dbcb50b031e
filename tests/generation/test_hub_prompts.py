"""Prompts of a hub's data set, by the real `datasets` library and over HTTP, from a hub on this machine."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hub_server import hub

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("hub")]
ROOT = Path(__file__).parents[2]
FIRST, SECOND, NONE = ("1" * 40, "2" * 40, "3" * 40)
SOURCE = {
    "source": "dataset", "path": "p", "name": "owner/set", "config": None, "split": "train", "column": "q",
    "topic": "about", "revision": FIRST, "streaming": False, "limit": None,
}  # fmt: skip
CODE = """
import json, sys
from distill.core.errors import UserError
from distill.generation.hub_prompts import from_dataset
from distill.params.generate import DatasetPrompts
for source in json.loads(sys.argv[1]):
    try:
        found, _ = from_dataset(DatasetPrompts(**source))
        print(json.dumps(sorted([row["messages"][0]["content"], row["topic"]] for row in found)))
    except UserError as error:
        print(json.dumps(str(error)))
"""


def lines(*questions: str) -> bytes:
    return "".join(json.dumps({"q": text, "about": text[:3]}) + "\n" for text in questions).encode()


def files(*questions: str) -> dict[str, bytes]:
    return {"README.md": b"# A set\n", "train.jsonl": lines(*questions), "test.jsonl": lines("Held out?")}


SETS = {"owner/set": {FIRST: files("One?", "Two?"), SECOND: files("Three?")}}


def asking(url: str, home: Path, *changes: dict[str, Any]) -> subprocess.Popen[str]:
    """A process of its own, since the hub's address is read at import, with a cache of its own."""
    ours = {"HF_ENDPOINT": url, "HF_HOME": str(home), "HF_HUB_OFFLINE": "0", "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", CODE, json.dumps([SOURCE | change for change in changes])]
    return subprocess.Popen(command, env=os.environ | ours, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def found(process: subprocess.Popen[str]) -> list[Any]:
    """The prompts with their topics, or the error's text, for each change."""
    output, errors = process.communicate(timeout=250)
    assert process.returncode == 0, errors
    return [json.loads(line) for line in output.splitlines()]


@pytest.fixture(scope="module")
def caches(tmp_path_factory) -> Path:
    """A folder for what a process keeps of the hub: in `whole` a data set, in `streamed` only its card."""
    return tmp_path_factory.mktemp("caches")


@pytest.fixture(scope="module")
def online(caches) -> tuple[list[Any], list[str], str]:
    """What each of the changes below gives, what the hub was asked for it, and its address, where it is no more."""
    with hub(SETS) as (url, asked):
        whole = found(
            asking(
                url, caches / "whole", {}, {"streaming": True}, {"revision": SECOND, "streaming": True},
                {"split": "test", "topic": 1}, {"name": "owner/none"}, {"revision": NONE}, {"split": "none"},
                {"config": "none"}, {"column": "none"},
            )
        )  # fmt: skip
        assert found(asking(url, caches / "streamed", {"streaming": True})) == whole[:1]
        return whole, asked, url


def test_name_revision_split_column_and_topic_choose_the_prompts_streamed_or_not(online):
    whole, streamed, second, split, *_ = online[0]
    assert whole == streamed == [["One?", "One"], ["Two?", "Two"]]
    assert second == [["Three?", "Thr"]]
    assert split == [["Held out?", "bucket-0"]]
    assert f"GET /datasets/owner/set/resolve/{SECOND}/train.jsonl" in online[1]
    assert not any("/main" in path for path in online[1])  # what the name means today


def test_what_the_hub_does_not_have_is_named_with_what_to_do_next(online):
    wanted = ["'owner/none' doesn't exist", f"'{NONE}' doesn't exist", "Unknown split", "'none' not found", "no column"]
    for text, words in zip(online[0][4:], wanted, strict=True):
        assert words in text
    assert all("Check generate.prompts in params.yaml" in text for text in online[0][4:8])


def test_a_hub_that_cannot_be_reached_is_named_and_never_replaced_by_another_revision(online, caches):
    asked = [
        asking(online[2], caches / "whole", {"revision": SECOND}),
        asking(online[2], caches / "streamed", {}),
        asking(online[2], caches / "new", {}),
    ]
    (kept,), (half,), (new,) = map(found, asked)
    assert f"the hub cannot be reached, and the copy that is kept here is of {FIRST}" in kept
    assert "Connection refused" in half
    assert "Couldn't reach 'owner/set' on the Hub" in new
    assert all("a hub must be reachable from here" in text for text in (kept, half, new))
