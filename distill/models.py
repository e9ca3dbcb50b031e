"""Loading models: from a folder, a hub name or a GGUF file; never a pickle, never remote code."""

import ctypes
import importlib.util
import platform
import random
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, GgufConfig
from transformers.utils import logging

from distill import few_shot
from distill.errors import UserError
from distill.files import file_hash

CPUINFO = Path("/proc/cpuinfo")
MALLOC_TRIM_THRESHOLD, MALLOC_MMAP_MAX = -1, -4  # of glibc's malloc.h


def prepare(threads: int, seed: int) -> None:
    """Fixes what the bytes of a result depend on: threads, seeds, deterministic kernels."""
    torch.set_num_threads(threads)
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)
    torch.use_deterministic_algorithms(True, warn_only=True)
    # nothing here reads what it has not written, and filling each new tensor takes a fifth of a training step
    setattr(torch.utils.deterministic, "fill_uninitialized_memory", False)  # noqa: B010 (a property of the module)
    _keep_freed_memory()
    logging.disable_progress_bar()
    logging.set_verbosity_error()


def _keep_freed_memory() -> None:
    """Lets glibc reuse freed blocks instead of returning them to the system, which clears each page anew.

    Training on the CPU was 1.5 times as fast with it. Other C libraries are left as they are.
    """
    if platform.libc_ver()[0] == "glibc":
        libc = ctypes.CDLL("libc.so.6")
        libc.mallopt(MALLOC_MMAP_MAX, 0)
        libc.mallopt(MALLOC_TRIM_THRESHOLD, 2**31 - 1)


def device() -> torch.device:
    """A GPU where there is one, else the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def compute_dtype(choice: str) -> torch.dtype:
    """The dtype of matmuls: as chosen, or for `auto` bfloat16 where the hardware multiplies faster in it.

    These are GPUs, Intel's processors with AMX and AMD's with AVX-512's bfloat16 instructions (380 against 170 GFLOP/s
    in fp32, measured on two cores of an EPYC). Those instructions multiply at half the rate of fp32 on an Intel without
    AMX (155 against 312 GFLOP/s on two cores), where fp32 is both the faster and the more exact choice.
    """
    if choice != "auto":
        return getattr(torch, choice)
    if torch.cuda.is_available():
        native = torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        native = torch.cpu._is_amx_tile_supported() or (torch.cpu._is_avx512_bf16_supported() and _is_amd())
    return torch.bfloat16 if native else torch.float32


def _is_amd() -> bool:
    """Whether Linux says that AMD made the processor; elsewhere it is not known."""
    return CPUINFO.exists() and "AuthenticAMD" in CPUINFO.read_text(encoding="utf-8")


def locate(model: str) -> str:
    """The folder, file or hub name that a `model` param means; `package:NAME/FILE` is a file of a Python package.

    Raises UserError where the package or the file is not there.
    """
    if not model.startswith("package:"):
        return model
    package, _, file = model.removeprefix("package:").partition("/")
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise UserError(f"model {model!r}: the Python package {package!r} is not installed. Run `make install`.")
    path = Path(spec.submodule_search_locations[0]) / file
    if not path.is_file():
        raise UserError(f"model {model!r}: the package {package!r} has no file {file!r}.")
    return str(path)


def load(
    model: str,
    dtype: torch.dtype,
    revision: str | None = None,
    sha256: str | None = None,
    template: str | None = None,
) -> tuple[Any, Any]:
    """A causal language model in eval mode, without dropout, on the device, and its tokenizer.

    A GGUF file is de-quantised to `dtype`. Raises UserError where the model cannot be had or is not the
    one that `sha256` pins. `template` is as `load_tokenizer` has it.
    """
    tokenizer = load_tokenizer(model, revision, sha256, template)
    where, options = _source(model, revision)
    if "gguf_file" in options:
        options["quantization_config"] = GgufConfig(dequantize=True)
    network = _loaded(AutoModelForCausalLM, where, model, dtype=dtype, use_safetensors=True, **options)
    if "gguf_file" in options and hasattr(network.config, "quantization_config"):
        del network.config.quantization_config  # the weights are plain now, and must be saved as such
    return network.to(device()).eval(), tokenizer


def load_tokenizer(
    model: str, revision: str | None = None, sha256: str | None = None, template: str | None = None
) -> Any:
    """The model's fast tokenizer, with its own chat template or, for `few_shot`, that of distill/few_shot.py.

    Raises UserError as `load` does.
    """
    where, options = _source(model, revision)
    if sha256 is not None:
        found = file_hash(Path(where) / options["gguf_file"]) if "gguf_file" in options else None
        if found != sha256:
            raise UserError(f"model {model!r}: params pin sha256 {sha256}, but the file has {found}.")
    tokenizer = _loaded(AutoTokenizer, where, model, **options)
    if not tokenizer.is_fast:
        raise UserError(f"model {model!r} has no fast tokenizer (tokenizer.json), which this project needs.")
    if template == "few_shot":
        tokenizer.chat_template = few_shot.TEMPLATE
    return tokenizer


def load_config(model: str, revision: str | None = None) -> Any:
    """The model's configuration."""
    where, options = _source(model, revision)
    return _loaded(AutoConfig, where, model, **options)


def parameter_count(network: torch.nn.Module) -> int:
    """Number of weights; tied ones count once."""
    return sum(parameter.numel() for parameter in network.parameters())


def _source(model: str, revision: str | None) -> tuple[str, dict[str, Any]]:
    where = locate(model)
    if where.endswith(".gguf"):
        if not Path(where).is_file():
            raise UserError(f"model {model!r}: there is no such file.")
        return str(Path(where).parent), {"gguf_file": Path(where).name}
    return where, {"revision": revision} if revision else {}


def _loaded(kind: Any, where: str, model: str, **options: Any) -> Any:
    try:
        return kind.from_pretrained(where, trust_remote_code=False, **options)
    except (OSError, ValueError, KeyError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise UserError(
            f"model {model!r} cannot be loaded: {reason} "
            "Give a folder with config.json, tokenizer.json and safetensors, a .gguf file, or a hub name that "
            "this machine can reach."
        ) from None
