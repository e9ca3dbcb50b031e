"""Prompts of a hub data set, by the real `datasets` library over HTTP, from a hub on this machine."""

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


def start(url: str, home: Path, *changes: dict[str, Any]) -> subprocess.Popen[str]:
    """A process with its own cache. The hub's address is read at import."""
    ours = {"HF_ENDPOINT": url, "HF_HOME": str(home), "HF_HUB_OFFLINE": "0", "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", CODE, json.dumps([SOURCE | change for change in changes])]
    return subprocess.Popen(command, env=os.environ | ours, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def results(process: subprocess.Popen[str]) -> list[Any]:
    """The prompts with their topics, or the error's text, for each change."""
    output, errors = process.communicate(timeout=250)
    assert process.returncode == 0, errors
    return [json.loads(line) for line in output.splitlines()]


@pytest.fixture(scope="module")
def caches(tmp_path_factory) -> Path:
    """A folder of caches: `whole` has a data set, `streamed` only its card."""
    return tmp_path_factory.mktemp("caches")


@pytest.fixture(scope="module")
def online(caches) -> tuple[list[Any], list[str], str]:
    """The result of each change below, the requests to the hub, and its address, where it no longer runs."""
    with hub(SETS) as (url, requests):
        whole = results(
            start(
                url, caches / "whole", {}, {"streaming": True}, {"revision": SECOND, "streaming": True},
                {"split": "test", "topic": 1}, {"name": "owner/none"}, {"revision": NONE}, {"split": "none"},
                {"config": "none"}, {"column": "none"},
            )
        )  # fmt: skip
        assert results(start(url, caches / "streamed", {"streaming": True})) == whole[:1]
        return whole, requests, url


def test_keys_choose_the_prompts_streamed_or_not(online):
    whole, streamed, second, split, *_ = online[0]
    assert whole == streamed == [["One?", "One"], ["Two?", "Two"]]
    assert second == [["Three?", "Thr"]]
    assert split == [["Held out?", "bucket-0"]]
    assert f"GET /datasets/owner/set/resolve/{SECOND}/train.jsonl" in online[1]
    assert not any("/main" in path for path in online[1])  # the newest revision


def test_a_missing_part_of_a_hub_data_set_is_named(online):
    expected = [
        "'owner/none' doesn't exist",
        f"'{NONE}' doesn't exist",
        "Unknown split",
        "'none' not found",
        "no column",
    ]
    for text, words in zip(online[0][4:], expected, strict=True):
        assert words in text
    assert all("Check generate.prompts in params.yaml" in text for text in online[0][4:8])


def test_an_unreachable_hub_is_never_replaced_by_another_revision(online, caches):
    processes = [
        start(online[2], caches / "whole", {"revision": SECOND}),
        start(online[2], caches / "streamed", {}),
        start(online[2], caches / "new", {}),
    ]
    (kept,), (half,), (new,) = map(results, processes)
    assert f"the hub cannot be reached, and the cached copy is of revision {FIRST}" in kept
    assert "Connection refused" in half
    assert "Couldn't reach 'owner/set' on the Hub" in new
    assert all("a hub must be reachable from here" in text for text in (kept, half, new))
