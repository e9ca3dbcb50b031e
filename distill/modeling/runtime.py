"""Threads, seeds, device and dtype of computations."""

import ctypes
import platform
import random
from pathlib import Path

import numpy as np
import torch
from transformers.utils import logging

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
    """Lets glibc reuse freed blocks instead of returning them to the system, which clears each page again.

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


def dtype_name(dtype: torch.dtype) -> str:
    """The name without `torch.`."""
    return str(dtype).removeprefix("torch.")


def _is_amd() -> bool:
    """Whether Linux says that AMD made the processor; elsewhere it is not known."""
    return CPUINFO.exists() and "AuthenticAMD" in CPUINFO.read_text(encoding="utf-8")
