"""The environment that a result was made in: what its bytes depend on beside data, params and code.

Stages write it beside their results, outside DVC's outs: it differs from machine to machine where the results
need not. It names no host, no path and no time.
"""

import platform
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import Any

import torch
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from distill.core.files import file_hash, write_json
from distill.modeling.runtime import CPUINFO, compute_dtype, dtype_name
from distill.params.schema import Runtime

FOLDER = Path("metrics/environment")
REQUIREMENTS = Path("requirements.txt")
PINS = (REQUIREMENTS, Path("requirements-teacher.txt"), Path("constraints.txt"))
FEATURES = ("amx", "avx", "fma", "asimd", "sve", "bf16", "i8mm")  # what chooses a kernel begins with one of these


def record(stage: str, runtime: Runtime) -> None:
    """Writes metrics/environment/<stage>.json."""
    write_json(FOLDER / f"{stage}.json", manifest(runtime))


def manifest(runtime: Runtime) -> dict[str, Any]:
    """Python, packages, processor, torch and the choices of `runtime`."""
    return {
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
        "processor": processor(CPUINFO),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "threads": runtime.threads,
        "dtype": dtype_name(compute_dtype(runtime.dtype)),
        "torch": {
            "version": torch.__version__,
            "build": torch.version.git_version,
            "cuda": torch.version.cuda,
            "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        },
        "requirements": {path.name: file_hash(path) for path in PINS if path.exists()},
        "packages": packages(REQUIREMENTS.read_text(encoding="utf-8")) if REQUIREMENTS.exists() else {},
    }


def processor(cpuinfo: Path) -> dict[str, Any]:
    """Model and arithmetic features of the first processor, from Linux's cpuinfo; elsewhere the model alone."""
    if not cpuinfo.exists():
        return {"model": platform.processor(), "features": []}
    lines = [line.partition(":") for line in cpuinfo.read_text(encoding="utf-8").splitlines()]
    found = {key.strip(): value.strip() for key, _, value in reversed(lines)}
    flags = (found.get("flags") or found.get("Features") or "").split()
    return {
        "model": found.get("model name", platform.machine()),
        "features": sorted(flag for flag in flags if flag.startswith(FEATURES)),
    }


def packages(requirements: str) -> dict[str, str]:
    """The installed versions of the packages that a requirements file names, and of all that these need."""
    lines = [line.partition("#")[0].strip() for line in requirements.splitlines()]
    todo = [(Requirement(line), frozenset({""})) for line in lines if line]
    seen: set[tuple[str, frozenset[str]]] = set()
    found: dict[str, str] = {}
    while todo:
        needed, extras = todo.pop()
        if needed.marker and not any(needed.marker.evaluate({"extra": extra}) for extra in extras):
            continue
        key = canonicalize_name(needed.name), frozenset({"", *needed.extras})
        if key in seen:
            continue
        seen.add(key)
        try:
            package = distribution(needed.name)
        except PackageNotFoundError:
            found[key[0]] = "missing"
            continue
        found[key[0]] = package.version
        todo += [(Requirement(line), key[1]) for line in package.requires or []]
    return dict(sorted(found.items()))
