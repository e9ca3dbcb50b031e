"""The manifest of the environment: complete, the same each time, and without a word about the machine's owner."""

import getpass
import json
import platform
import socket
from importlib.metadata import version
from pathlib import Path

import pytest
import torch

from distill.core.files import file_hash
from distill.modeling import environment, runtime
from distill.params.schema import Runtime

ROOT = Path(__file__).parents[2]
RUNTIME = Runtime(threads=3, dtype="float32")
CPUINFO = """processor\t: 0
model name\t: Some Processor 9000
flags\t\t: fpu sse2 avx2 amx_bf16 avx512f fma aes

processor\t: 1
model name\t: Another
flags\t\t: fpu
"""


def test_the_manifest_names_what_bytes_depend_on(monkeypatch):
    monkeypatch.chdir(ROOT)
    manifest = environment.manifest(RUNTIME)
    assert manifest["python"] == platform.python_version()
    assert (manifest["threads"], manifest["dtype"]) == (3, "float32")
    assert manifest["torch"]["version"] == torch.__version__
    assert manifest["requirements"]["requirements.txt"] == file_hash(ROOT / "requirements.txt")
    assert manifest["packages"]["torch"] == version("torch")
    assert environment.manifest(RUNTIME) == manifest


def test_the_manifest_names_no_host_no_user_and_no_path(monkeypatch, tmp_path):
    for name in ("requirements.txt", "constraints.txt"):
        (tmp_path / name).write_text((ROOT / name).read_text())
    monkeypatch.chdir(tmp_path)
    environment.record("train@sft-7", RUNTIME)
    text = (tmp_path / "metrics/environment/train@sft-7.json").read_text()
    assert json.loads(text)["threads"] == 3
    for word in (socket.gethostname(), str(tmp_path), str(Path.home()), f'"{getpass.getuser()}"'):
        assert word not in text


def test_packages_are_those_of_the_file_and_what_they_need_and_no_more():
    found = environment.packages("# a comment\nscipy==1.0  # rank correlation\nno-such-package==1\n")
    assert found == {"no-such-package": "missing", "numpy": version("numpy"), "scipy": version("scipy")}
    assert "pytest" not in environment.packages((ROOT / "requirements.txt").read_text())


def test_packages_of_an_extra_count_only_where_it_is_asked_for():
    assert "pytest" not in environment.packages("scipy==1.0")
    assert "pytest" in environment.packages("scipy[test]==1.0")


def test_the_processor_is_the_first_one_with_the_features_that_choose_kernels(tmp_path):
    (tmp_path / "cpuinfo").write_text(CPUINFO)
    assert environment.processor(tmp_path / "cpuinfo") == {
        "model": "Some Processor 9000",
        "features": ["amx_bf16", "avx2", "avx512f", "fma"],
    }
    assert environment.processor(tmp_path / "none")["features"] == []


@pytest.mark.parametrize(
    ("amx", "avx512_bf16", "vendor", "expected"),
    [
        (True, True, "GenuineIntel", torch.bfloat16),
        (False, True, "AuthenticAMD", torch.bfloat16),
        (False, True, "GenuineIntel", torch.float32),
        (False, False, "AuthenticAMD", torch.float32),
    ],
)
def test_the_dtype_is_what_the_processor_multiplies_faster(monkeypatch, tmp_path, amx, avx512_bf16, vendor, expected):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: amx)
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: avx512_bf16)
    (tmp_path / "cpuinfo").write_text(f"vendor_id\t: {vendor}\n")
    monkeypatch.setattr(runtime, "CPUINFO", tmp_path / "cpuinfo")
    assert runtime.compute_dtype("auto") == expected
    assert runtime.compute_dtype("float32") == torch.float32
