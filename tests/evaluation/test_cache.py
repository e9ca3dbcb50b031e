"""The cache of measurements: a second measurement is read, unless its key changed or its file is damaged."""

import json

import pytest

from distill.evaluation.cache import cached
from distill.modeling import loading

KEY = {"model": {"model.safetensors": "ab"}, "environment": {"torch": "1"}, "code": ["c"]}
VALUE = [{"item": "a", "nll": 0.1 + 0.2, "generated": "é\n"}, {"item": "b", "nll": 1e-17}]


class Maker:
    """Counts its calls."""

    def __init__(self, value: object) -> None:
        self.value, self.calls = value, 0

    def __call__(self) -> object:
        self.calls += 1
        return self.value


def test_the_second_call_reads_the_same_value(tmp_path, capsys):
    make = Maker(VALUE)
    assert cached(tmp_path, "teacher", KEY, make) == VALUE
    assert cached(tmp_path, "teacher", KEY, make) == VALUE
    assert make.calls == 1
    assert "teacher: measured before" in capsys.readouterr().out
    assert [path.name.startswith("teacher-") for path in tmp_path.iterdir()] == [True]


@pytest.mark.parametrize("part", list(KEY))
def test_another_model_environment_or_code_is_measured_again(tmp_path, part):
    make = Maker(VALUE)
    cached(tmp_path, "teacher", KEY, make)
    cached(tmp_path, "teacher", KEY | {part: "other"}, make)
    cached(tmp_path, "distilled", KEY, make)
    assert make.calls == 3


def damaged(text: str) -> list[str]:
    """The file cut off, empty, of another shape, with a digit changed, and with another key's value."""
    stored = json.loads(text)
    other = json.dumps(stored | {"key": {"model": "other"}})
    return [text[:-20], "", "[]", text.replace('"item": "b"', '"item": "c"'), other]


@pytest.mark.parametrize("kind", range(5))
def test_a_damaged_file_is_named_and_measured_again(tmp_path, capsys, kind):
    make = Maker(VALUE)
    cached(tmp_path, "teacher", KEY, make)
    [path] = tmp_path.iterdir()
    text = path.read_text()
    path.write_text(damaged(text)[kind])
    assert path.read_text() != text
    assert cached(tmp_path, "teacher", KEY, make) == VALUE
    assert make.calls == 2
    assert f"{path} is damaged" in capsys.readouterr().out
    assert path.read_text() == text


def test_a_failed_measurement_leaves_no_file(tmp_path):
    with pytest.raises(ValueError, match="JSON"):
        cached(tmp_path, "teacher", KEY, Maker([float("nan")]))
    assert list(tmp_path.iterdir()) == []


def test_a_model_is_identified_by_its_files(tmp_path):
    for name, text in {
        "model.safetensors": "w" * 9,
        "config.json": "{}",
        "chat_template.jinja": "t",
        "x.md": "x",
    }.items():
        (tmp_path / name).write_text(text)
    first = loading.file_hashes(str(tmp_path), None)
    assert sorted(first) == ["chat_template.jinja", "config.json", "model.safetensors"]
    assert loading.weight_bytes(str(tmp_path), None) == 9
    (tmp_path / "chat_template.jinja").write_text("u")
    assert loading.file_hashes(str(tmp_path), None) != first
    gguf = tmp_path / "model.gguf"
    gguf.write_text("gguf")
    assert list(loading.file_hashes(str(gguf), None)) == ["model.gguf"]
    assert loading.weight_bytes(str(gguf), None) == 4
