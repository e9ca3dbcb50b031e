"""Files of changes to params.yaml: applied to a copy of the shipped one, and the example that is shipped."""

import json
import re
from pathlib import Path

import pytest
import tiny
import yaml

from distill.core.errors import UserError
from distill.params import loading as params_file
from tools import prompts, set_params

SHIPPED = (tiny.ROOT / "params.yaml").read_text()
EXAMPLE = tiny.ROOT / "experiments/classification.yaml"
FILE = Path("changes.yaml")


def test_no_change_leaves_every_byte_as_it_was():
    assert set_params.overlaid(SHIPPED, {}, FILE) == SHIPPED


def test_a_change_touches_its_own_line_and_keeps_the_comment_behind_it():
    new = set_params.overlaid(SHIPPED, {"weight.window": 9, "teachers.0.prompt_fraction": 0.5, "plot.samples": 2}, FILE)
    before, after = (set(text.splitlines()) for text in (SHIPPED, new))
    assert len(before - after) == len(after - before) == 3
    assert any(re.fullmatch(r"  window: 9 +# tokens in a row, of lowest_window_log_prob", line) for line in after)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"weight.windows": 9}, "changes.yaml: params.yaml has no weight.windows"),
        ({"teachers.1.prompt_fraction": 0.5}, "changes.yaml: params.yaml has no teachers.1.prompt_fraction"),
        ({"weight.window": 0}, "would be refused, so that it is left alone"),
    ],
)
def test_a_change_that_is_none_is_refused(changes, words):
    with pytest.raises(UserError) as error:
        set_params.overlaid(SHIPPED, changes, FILE)
    assert words in str(error.value)


def test_a_file_that_is_no_mapping_is_refused(tmp_path):
    for text in ("- a", "{", "1: 2", ""):
        (tmp_path / "file.yaml").write_text(text)
        with pytest.raises(UserError, match=r"file\.yaml"):
            set_params.read(tmp_path / "file.yaml")
    with pytest.raises(UserError, match="is no file of changes"):
        set_params.read(tmp_path / "missing.yaml")


def test_the_command_writes_params_that_are_accepted_or_nothing(tmp_path):
    (tmp_path / "params.yaml").write_text(SHIPPED)
    (tmp_path / "bad.yaml").write_text("train.schedule.epochs: 0\n")
    (tmp_path / "tools").symlink_to(tiny.ROOT / "tools")
    (tmp_path / "distill").symlink_to(tiny.ROOT / "distill")
    refused = tiny.run(tmp_path, "python", "-m", "tools.set_params", "bad.yaml", check=False)
    assert refused.returncode == 1
    assert "train.schedule.epochs" in refused.stderr
    assert "Traceback" not in refused.stderr
    assert (tmp_path / "params.yaml").read_text() == SHIPPED
    tiny.run(tmp_path, "python", "-m", "tools.set_params", str(EXAMPLE))
    found = params_file.check(yaml.safe_load((tmp_path / "params.yaml").read_text()))
    assert found.generate.class_labels == yaml.safe_load(EXAMPLE.read_text())["generate.class_labels"]


def test_the_committed_sentences_are_those_of_words_and_forms_and_no_example_gives_one_away():
    source = yaml.safe_load((tiny.ROOT / prompts.KINDS).read_text())
    rows = [json.loads(line) for line in (tiny.ROOT / prompts.KIND_PROMPTS).read_text().splitlines()]
    assert rows == prompts.labeled_prompts(source["kinds"], source["forms"])
    changes = yaml.safe_load(EXAMPLE.read_text())
    assert changes["generate.class_labels"] == list(source["kinds"])
    words = {word for some in source["kinds"].values() for word in some}
    assert len(words) == sum(map(len, source["kinds"].values())), "a word of two kinds has no right label"
    assert not {f"{word}s" for word in words} & words, "held-out things are in no training sentence"
    for shot in changes["generate.few_shot"]:
        assert not words & set(re.findall(r"\w+", shot["user"]))
