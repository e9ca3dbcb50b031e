"""torch.compile of the decoder's layers, optional."""

from collections.abc import Iterator
from contextlib import contextmanager

from transformers import PreTrainedModel

from distill.core.errors import UserError

VARIANTS = 8  # compilations of a layer, at most; torch's own limit is one of all layers together


@contextmanager
def compiled(model: PreTrainedModel, enabled: bool) -> Iterator[None]:
    """Inside the block the decoder's layers are compiled, each by itself, for batches of any shape.

    The rest of the model is not compiled. The results differ in their last digits. Raises UserError if it is enabled
    and there is no compiler.
    """
    if not enabled:
        yield
        return
    _require_compiler(model.device.type)
    import torch._dynamo.config  # a second, as in _require_compiler

    layers = model.get_decoder().layers
    for layer in layers:
        layer.compile(dynamic=True)
    # a layer is compiled again with and without gradients, and with the cached states of a student that decodes
    with torch._dynamo.config.patch(recompile_limit=VARIANTS * len(layers)):
        try:
            yield
        finally:
            for layer in layers:
                layer._compiled_call_impl = None


def _require_compiler(device: str) -> None:
    """Raises UserError where torch.compile would find nothing to compile with."""
    # takes a second to import, for an option that is off by default
    from torch._inductor.cpp_builder import get_cpp_compiler
    from torch._inductor.exc import InvalidCxxCompiler
    from torch.utils._triton import has_triton

    compiler = "Triton"
    if device == "cpu":
        compiler = "a C++ compiler (g++, clang++, or the one in CXX)"
        try:
            get_cpp_compiler()
        except InvalidCxxCompiler:
            pass
        else:
            return
    elif has_triton():
        return
    raise UserError(f"train.compile: true needs {compiler}; none was found. Install one or set it to false.")
