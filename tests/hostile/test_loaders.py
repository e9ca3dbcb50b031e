"""Model folders of strangers: every broken file is one message, and no other answer comes from a replaced one."""

import json
import shutil

import pytest
import tiny
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from distill.core.errors import UserError
from distill.modeling import loading
from distill.params.teachers import LocalTeacher

POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"0" * 64 + b"\nsize 269060552\n"
PAGE = b"<!DOCTYPE html><html><head><title>404</title></head></html>"
FILES = ("model.safetensors", "config.json", "tokenizer.json", "tokenizer_config.json")
TEXTS = (b"", b"\x00" * 64, PAGE, POINTER, b"{", b"[]", b"null", b"\xff\xfe", b'{"a": ' * 3000, b"\xff" * 8 + b"{}")


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole")
    tokenizer = tiny.tokenizer()
    loading.save_model(tiny.model(len(tokenizer), layers=2), tokenizer, folder)
    return folder


@pytest.fixture(scope="module")
def broken(whole, tmp_path_factory):
    """A folder that each case breaks, and its files."""
    folder = tmp_path_factory.mktemp("broken") / "model"
    return folder, {path.name: path.read_bytes() for path in whole.iterdir()}


def load(folder, files) -> str | None:
    """The message where the folder of these files is refused, None where it loads."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    for name, content in files.items():
        (folder / name).write_bytes(content)
    try:
        loading.load_model(str(folder), torch.float32)
    except UserError as error:
        return str(error)
    return None


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("content", TEXTS, ids=range(len(TEXTS)))
def test_a_file_of_something_else_is_one_short_message(broken, name, content):
    folder, files = broken
    message = load(folder, files | {name: content})
    if name in FILES[:2]:
        assert message
    assert message is None or len(message) < 1000


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.sampled_from(FILES), st.integers(0, 4000), st.integers(0, 255), st.booleans())
def test_no_cut_or_changed_byte_is_a_traceback(broken, name, place, value, cut):
    folder, files = broken
    content = bytearray(files[name])
    place = place % len(content)
    if cut:
        del content[place:]
    else:
        content[place] = value
    message = load(folder, files | {name: bytes(content)})
    assert message or not (cut and name in FILES[:2])


CONFIGS = [
    {"num_hidden_layers": 3}, {"num_hidden_layers": 1}, {"hidden_size": 64}, {"vocab_size": 10}, {"model_type": "gpt2"},
    {"model_type": "no_such"}, {"tie_word_embeddings": False}, {"num_attention_heads": 0}, {"num_attention_heads": "4"},
    {"hidden_size": -1}, {"hidden_size": None}, {"intermediate_size": 10**12}, {"rope_parameters": []},
    {"num_key_value_heads": 3}, {"hidden_act": "no_such"}, {"vocab_size": 2**70},
    {"quantization_config": {"quant_method": "gptq", "bits": 4}}, {"quantization_config": {"quant_method": "awq"}},
    {"auto_map": {"AutoModelForCausalLM": "evil.Model"}, "model_type": "evil"},
]  # fmt: skip


@pytest.mark.parametrize("change", CONFIGS, ids=str)
def test_a_configuration_that_does_not_fit_is_refused(broken, change):
    folder, files = broken
    config = json.loads(files["config.json"]) | change
    assert load(folder, files | {"config.json": json.dumps(config).encode()})


CHANGES = {
    "renamed": lambda weights: {f"other.{name}": value for name, value in weights.items()},
    "no final norm": lambda weights: {name: value for name, value in weights.items() if name != "model.norm.weight"},
    "no layer": lambda weights: {name: value for name, value in weights.items() if "layers.1" not in name},
    "nan": lambda weights: {name: value * torch.nan for name, value in weights.items()},
    "infinite": lambda weights: {name: value / 0 for name, value in weights.items()},
    "all zero": lambda weights: {name: value * 0 for name, value in weights.items()},
    "zero norm": lambda weights: weights | {"model.norm.weight": weights["model.norm.weight"] * 0},
    "empty": lambda weights: {},
}


@pytest.mark.parametrize("change", CHANGES)
def test_weights_that_do_not_fit_or_predict_nothing_are_refused(whole, broken, change):
    folder, files = broken
    load(folder, files)
    save_file(CHANGES[change](load_file(whole / FILES[0])), folder / FILES[0], metadata={"format": "pt"})
    with pytest.raises(UserError, match="model"):
        loading.load_model(str(folder), torch.float32)


@pytest.mark.parametrize("name", ["../model.safetensors", "/etc/passwd", "a/../../b.safetensors", "..", ""])
def test_an_index_names_files_in_its_folder_alone(whole, broken, name):
    folder, files = broken
    index = {"metadata": {}, "weight_map": dict.fromkeys(load_file(whole / FILES[0]), name)}
    shutil.copy(whole / FILES[0], folder.parent / FILES[0])
    rest = {key: content for key, content in files.items() if key != FILES[0]}
    message = load(folder, rest | {"model.safetensors.index.json": json.dumps(index).encode()})
    assert message
    assert "must name files in its folder" in message


def test_a_cut_gguf_and_a_missing_hub_name_are_messages(tmp_path):
    path = tmp_path / "a.gguf"
    for content in (b"", b"GGUF", b"GGUF\x03\x00\x00\x00" + b"\xff" * 40, PAGE, POINTER):
        path.write_bytes(content)
        with pytest.raises(UserError, match="cannot be loaded"):
            loading.load_model(str(path), torch.float32)
    with pytest.raises(UserError, match="cannot be loaded"):
        loading.file_hashes("no-such/name", None)


def test_a_teacher_is_what_its_files_are(whole, broken):
    folder, files = broken
    load(folder, files)
    teacher = LocalTeacher(**tiny.params()["teachers"][0] | {"model": str(folder)})
    before = loading.identity(teacher)
    assert loading.identity(teacher) == before
    weights = load_file(whole / FILES[0])
    save_file({name: value + 1 for name, value in weights.items()}, folder / FILES[0], metadata={"format": "pt"})
    assert loading.identity(teacher) != before
    assert loading.identity(teacher.model_copy(update={"sha256": "0" * 64})) == "0" * 64
