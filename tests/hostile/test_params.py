"""Hostile params.yaml: hundreds of changes, each of which loads or gives one short message in bounded time."""

import copy
import random
import subprocess
import sys
from pathlib import Path

import pytest
import tiny
from chat_server import api_teacher
from dvc.utils.serialize import parse_yaml as dvc_parse_yaml
from shipped_params import HIDDEN_LOSS, ON_POLICY, SHIPPED, WEIGHTS, changed, refusal

from distill.core.errors import UserError
from distill.params.loading import check_params, load_params
from distill.params.schema import Params
from distill.params.yaml_text import format_yaml, parse_yaml

TEXT = (tiny.ROOT / "params.yaml").read_text()
FILE = Path("params.yaml")
ESCAPES = "\x1b]0;owned\x07\u202etext\u200b\x9b31m"
JUNK = [
    None, True, False, 0, -1, 1, 2, 10**30, -(10**30), 10**300, 0.5, -0.5, 1e6, 1e300, -1e300, 1e-300,
    float("inf"), float("nan"), "", " ", "x", "yes", "1e-4", "1e999", "9" * 5000, "a" * 100_000, "\0", "\ud800",
    ESCAPES, "../..",
    "package:x/../..", "package:", "$(id)", "a;b", [], [0], ["x"], [[]], [10**30], {}, {"x": 1}, {1: 2}, {ESCAPES: 1},
    {"kind": "x"}, {"kind": []}, {"kind": {"kind": None}}, b"x", {"a"}, (1, 2),
]  # fmt: skip
EVERY_SECTION = [  # values of the keys that the shipped params leave null
    [("train.distilled.hidden_loss", HIDDEN_LOSS), ("targets.layers", [20]), ("weight", WEIGHTS)],
    [("targets", ON_POLICY), ("train.distilled.loss", {"kind": "jsd", "ce_weight": 0.0, "temperature": 1.0,
     "tail": None, "beta": 0.5})],
    [("teachers", [SHIPPED["teachers"][0], api_teacher("http://host/v1")])],
]  # fmt: skip
DEEP = "".join(f"{' ' * depth}a:\n" for depth in range(900))
BOMB = "a0: &a0 [1,1,1,1,1,1,1,1,1]\n" + "".join(
    f"a{number + 1}: &a{number + 1} [{', '.join([f'*a{number}'] * 9)}]\n" for number in range(12)
)
BROKEN = [
    "a: " * 900 + "1", "[" * 900, "[" * 150_000, "{a: " * 900, "- " * 900 + "x", DEEP,
    "a: 2020-13-45", f"a: {'9' * 5000}", f"a: -{'9' * 5000}", f"a: 1e{'9' * 500}", BOMB, "a: &a [*a]", "&a {a: *a}",
    "a: 1\na: 2", f"a: 0x{'f' * 5000}", f"{{[0x{'f' * 5000}]: 1}}",
    f"{'k' * 100_000}: 1\n{'k' * 100_000}: 2", "a: !!python/object/apply:os.system [id]", "a: !!int x",
    "a: !!float x", "a: !!timestamp x", "a: !!binary x", "a: !!bool x", "a: !!omap x", "a: !x y", "a: *missing",
    "a: =", "? {a: 1}\n: 2", "%YAML 9.9\n---\na", "a: 1\n--- \nb: 2", "\x00", "\x1b[31m: 1", "a: \ud800",
    "a: [1", "a:\n\t- b",
    "a" * 300_000, "- a\n" * 60_000, '"\\x1b]0;owned\\x07": 1\n"\\x1b]0;owned\\x07": 2',
    "!!set {a, b}", "<<: 1", "<<: [[1]]",
]  # fmt: skip


def places(value: object, path: tuple = ()) -> list[tuple]:
    """The paths of all values, sections and leaves."""
    if isinstance(value, dict):
        children = list(value.items())
    else:
        children = list(enumerate(value)) if isinstance(value, list) else []
    return [path] * bool(path) + [inner for key, child in children for inner in places(child, (*path, key))]


def set_at(value: object, path: tuple, new: object) -> None:
    for key in path[:-1]:
        value = value[key]
    value[path[-1]] = new


def outcome(load: object, *arguments: object) -> str | None:
    """The message, or None where the params are taken. Any other exception fails the test."""
    try:
        load(*arguments)
    except UserError as error:
        return str(error)
    return None


def assert_short(message: str) -> None:
    """One screen of visible characters."""
    assert len(message.splitlines()) <= 24
    assert len(message) <= 6000
    assert all(character == "\n" or character.isprintable() for character in message), ascii(message)


@pytest.mark.parametrize("seed", range(4))
def test_junk_anywhere_loads_or_gives_one_short_message(seed):
    dice = random.Random(seed)
    bases = [changed(*changes) for changes in [[], *EVERY_SECTION]]
    assert all(isinstance(check_params(base), Params) for base in bases)
    for _ in range(500):
        value = copy.deepcopy(dice.choice(bases))
        for _ in range(dice.choice([1, 1, 1, 3])):
            set_at(value, dice.choice(places(value)), copy.deepcopy(dice.choice(JUNK)))
        if message := outcome(check_params, value):
            assert_short(message)


@pytest.mark.timeout(60)
@pytest.mark.parametrize("text", BROKEN, ids=range(len(BROKEN)))
def test_a_broken_file_gives_one_short_message(text, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    FILE.write_bytes(text.encode("utf-8", "surrogatepass"))
    message = outcome(load_params)
    assert message
    assert_short(message)


def test_a_file_whose_bytes_were_changed_loads_or_gives_one_short_message():
    dice = random.Random(5)
    for _ in range(60):
        characters = list(TEXT)
        for _ in range(dice.choice([1, 2, 10])):
            place = dice.randrange(len(characters))
            characters[place : place + dice.choice([0, 1, 1, 20])] = dice.choice(
                [*"\n\t :-[]{}&*!|>'\"%@`#,?0e", "\x1b", ""]
            )
        if message := outcome(lambda text: check_params(parse_yaml(text, FILE)), "".join(characters)):
            assert_short(message)


@pytest.mark.parametrize(
    "text",
    ["010", "0o10", "1:30", "yes", "[yes, no, on, off, y, n]", "1_000", "1e3", "1e-4", "0x1f", "~", "null", ".inf",
     "2020-01-01", "'010'", "<<: {a: 1}\na: 2", "[&a b, *a]"],
)  # fmt: skip
def test_the_stages_read_what_dvc_reads(text):
    value = parse_yaml(f"a: {text}" if "<<" not in text else text, FILE)
    assert value == dvc_parse_yaml(f"a: {text}" if "<<" not in text else text, "params.yaml")
    assert parse_yaml(format_yaml(value), FILE) == value


def test_epochs_of_010_are_ten_and_equal_keys_are_refused():
    text = TEXT.replace("num_train_epochs: 3", "num_train_epochs: 010")
    assert check_params(parse_yaml(text, FILE)).train.optimization.num_train_epochs == 10
    twice = TEXT.replace("data_seed: 22", "data_seed: 1\ndata_seed: 22")
    assert 'found duplicate key "data_seed"' in outcome(parse_yaml, twice, FILE)


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("train.optimization.learning_rate", 1e6), ("train.optimization.num_train_epochs", 10**30),
        ("train.optimization.batch_size", 10**30), ("train.distilled.loss.temperature", 1e-300),
        ("runtime.threads", 100_000), ("evaluate.bootstrap_resamples", 10**9), ("clean.minhash_num_perm", 10**6),
        ("evaluate.latency.num_runs", 10**12), ("generate.sampling_temperature", 1e-300), ("plot.num_samples", 10**30),
        ("teachers.0.model", "package:x/../.."), ("teachers.0.model", "package:x"),
        ("teachers.0.model", "package:/etc/x"),
        ("teachers.0.model", "package:x.y/z"), ("teachers.0.model", "package:x/./y"), ("teachers.0.model", "a\0b"),
        ("generate.prompts.path", "a\nb"), ("generate.system_prompt", "half \ud83d"),
        *(("generate.prompts", {"source": "folder", "path": "a", "pattern": pattern, "chunk_words": 9,
                                "template": "{text}"}) for pattern in ("/etc/*", "../*", "a/../../*", "a**", "**b/*")),
        *(("teachers", [SHIPPED["teachers"][0], api_teacher(url)]) for url in (
            "http://", "http://host:0/v1", "http://host:99999/v1", "http://host:x/v1", "ftp://host/v1", "http://a@b/v1",
            "http://ho st/v1", "http://[::1/v1", "http://-a/v1", "http://a..b/v1", "http://h\u00f6st/v1", "http:///v1",
            "http://host/v1?key=x", "http://host/v1#x", "http://host\\x/v1", "http://host/\u202e", "http://%41/v1",
            f"http://{'a' * 64}/v1", "//host/v1", "http://[::g]/v1")),
    ],
)  # fmt: skip
def test_values_that_would_fail_late_are_refused_at_once(path, value):
    assert refusal(changed((path, value))).splitlines()[0] == "params.yaml has 1 mistake:"


@pytest.mark.parametrize(
    "url",
    ["http://localhost:8000/v1", "https://api.host-1.example/v1/", "http://[::1]:8000/v1", "http://vllm_server:8000/v1",
     "http://10.0.0.1/v1", "https://h/a/b_c~d/openai"],
)  # fmt: skip
def test_urls_of_servers_are_taken(url):
    assert check_params(changed(("teachers", [SHIPPED["teachers"][0], api_teacher(url)]))).teachers[1].base_url == url


def test_a_key_with_terminal_escapes_is_shown_as_text(tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(tiny.ROOT))
    (tmp_path / "params.yaml").write_text('"\\e]0;owned\\a\\u202Etext": 1\n')
    code = "from distill.core import errors\nfrom distill.params import loading\nerrors.run_main(loading.load_params)"
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, check=False)
    assert done.returncode == 1
    assert rb"\x1b]0;owned\x07\u202etext: is not a known key" in done.stderr
    assert b"\x1b" not in done.stderr
