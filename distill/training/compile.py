"""Layers as torch.compile makes them, where there is a compiler; never needed."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from distill.core.errors import UserError

VARIANTS = 8  # compilations of a layer, at most; torch's own limit is one of all layers together


@contextmanager
def compiled(network: Any, wanted: bool) -> Iterator[None]:
    """Inside the block the decoder's layers are compiled, each by itself, for batches of any shape.

    What stands around them stays as it is. The results are the same but for their last digits. Raises UserError where
    it is wanted and there is no compiler.
    """
    if not wanted:
        yield
        return
    _require_compiler(network.device.type)
    import torch._dynamo.config  # a second, as in _require_compiler

    layers = network.get_decoder().layers
    for layer in layers:
        layer.compile(dynamic=True)
    # a layer is compiled anew with and without gradients, and with the cached states of a student that answers
    with torch._dynamo.config.patch(recompile_limit=VARIANTS * len(layers)):
        try:
            yield
        finally:
            for layer in layers:
                layer._compiled_call_impl = None


def _require_compiler(device: str) -> None:
    """Raises UserError where torch.compile would find nothing to compile with."""
    # takes a second to import, which only those wait for who compile
    from torch._inductor.cpp_builder import get_cpp_compiler
    from torch._inductor.exc import InvalidCxxCompiler
    from torch.utils._triton import has_triton

    what = "Triton"
    if device == "cpu":
        what = "a C++ compiler (g++, clang++, or what CXX names)"
        try:
            get_cpp_compiler()
        except InvalidCxxCompiler:
            pass
        else:
            return
    elif has_triton():
        return
    raise UserError(f"train.compile: true needs {what}, which is not here. Install it, or set train.compile: false.")
