"""Changes applied to the shipped params.yaml, and the shipped example of changes."""

import json
import re
from pathlib import Path

import pytest
import tiny
import yaml

from distill.core.errors import UserError
from distill.params.loading import check_params
from distill.params.yaml_text import parse_yaml
from tools import prompts, set_params

SHIPPED = (tiny.ROOT / "params.yaml").read_text()
EXAMPLE = tiny.ROOT / "experiments/classification.yaml"
FILE = Path("changes.yaml")


def test_no_changes_keep_every_byte():
    assert set_params.apply_changes(SHIPPED, {}, FILE) == SHIPPED


def test_a_change_edits_one_line_and_keeps_its_comment():
    new = set_params.apply_changes(
        SHIPPED, {"clean.max_words": 9, "teachers.0.prompt_fraction": 0.5, "plot.num_samples": 2}, FILE
    )
    before, after = (set(text.splitlines()) for text in (SHIPPED, new))
    assert len(before - after) == len(after - before) == 3
    assert any(re.fullmatch(r"  num_samples: 2 +# held-out responses .*", line) for line in after)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"clean.max_word": 9}, "changes.yaml: params.yaml has no clean.max_word"),
        ({"teachers.1.prompt_fraction": 0.5}, "changes.yaml: params.yaml has no teachers.1.prompt_fraction"),
        ({"clean.max_words": 0}, "params.yaml is unchanged: the changes of changes.yaml"),
    ],
)
def test_an_invalid_change_is_refused(changes, words):
    with pytest.raises(UserError) as error:
        set_params.apply_changes(SHIPPED, changes, FILE)
    assert words in str(error.value)


def test_a_file_without_a_mapping_is_refused(tmp_path):
    for text in ("- a", "{", "1: 2", ""):
        (tmp_path / "file.yaml").write_text(text)
        with pytest.raises(UserError, match=r"file\.yaml"):
            set_params.read_changes(tmp_path / "file.yaml")
    with pytest.raises(UserError, match=r"missing\.yaml is missing"):
        set_params.read_changes(tmp_path / "missing.yaml")


def test_labels_yes_and_no_are_written_and_read_back_as_words():
    changes = {"generate.class_labels": ["yes", "no"], "targets": None, "train.distilled.loss.tail": None}
    new = set_params.apply_changes(SHIPPED, changes, FILE)
    assert check_params(parse_yaml(new, FILE)).generate.class_labels == ["yes", "no"]


def test_the_command_writes_valid_params_or_nothing(tmp_path):
    (tmp_path / "params.yaml").write_text(SHIPPED)
    (tmp_path / "bad.yaml").write_text("train.optimization.num_train_epochs: 0\n")
    (tmp_path / "tools").symlink_to(tiny.ROOT / "tools")
    (tmp_path / "distill").symlink_to(tiny.ROOT / "distill")
    refused = tiny.run(tmp_path, "python", "-m", "tools.set_params", "bad.yaml", check=False)
    assert refused.returncode == 1
    assert "train.optimization.num_train_epochs" in refused.stderr
    assert "Traceback" not in refused.stderr
    assert (tmp_path / "params.yaml").read_text() == SHIPPED
    tiny.run(tmp_path, "python", "-m", "tools.set_params", str(EXAMPLE))
    found = check_params(yaml.safe_load((tmp_path / "params.yaml").read_text()))
    assert found.generate.class_labels == yaml.safe_load(EXAMPLE.read_text())["generate.class_labels"]


def test_the_classification_example_gives_no_answer_away():
    source = yaml.safe_load((tiny.ROOT / prompts.KINDS).read_text())
    rows = [json.loads(line) for line in (tiny.ROOT / prompts.KIND_PROMPTS).read_text().splitlines()]
    assert rows == prompts.labeled_prompts(source["kinds"], source["forms"])
    changes = yaml.safe_load(EXAMPLE.read_text())
    assert changes["generate.class_labels"] == list(source["kinds"])
    words = {word for group in source["kinds"].values() for word in group}
    assert len(words) == sum(map(len, source["kinds"].values())), "a word of two kinds has no right label"
    assert not {f"{word}s" for word in words} & words, "held-out things are in no training sentence"
    for shot in changes["generate.few_shot"]:
        assert not words & set(re.findall(r"\w+", shot["user"]))
