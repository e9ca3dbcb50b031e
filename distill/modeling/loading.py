"""The files that a model is loaded from: which bytes it is, and how many its weights take on disk."""

import importlib.util
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

from distill.core.errors import UserError
from distill.core.files import file_hash
from distill.modeling import few_shot
from distill.modeling.runtime import device


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
    """The model's fast tokenizer, with its own chat template or, for `few_shot`, that of distill/modeling/few_shot.py.

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


LOADED_FROM = ("is_local", "local_files_only")  # what transformers notes of the way that a tokenizer was loaded


def save(network: Any, tokenizer: Any, folder: Path) -> None:
    """Writes a Hugging Face folder. Raises UserError where the disk is full."""
    try:
        network.save_pretrained(folder)
        for name in LOADED_FROM:
            tokenizer.init_kwargs.pop(name, None)
        tokenizer.save_pretrained(folder)
    except Exception as error:  # of safetensors and tokenizers: theirs is no OSError and has no kind of its own
        if "os error 28" not in str(error):
            raise
        raise UserError(f"{folder} cannot be written ({error}). Free some space and run the same again.") from None


READ = ("*.safetensors", "*.json", "*.jinja")


def files(model: str, revision: str | None) -> list[Path]:
    """The GGUF file, or weights, configuration, tokenizer and template of a folder or of the hub's local cache."""
    path = Path(locate(model))
    if path.is_file():
        return [path]
    if not path.is_dir():
        from huggingface_hub import snapshot_download

        path = Path(snapshot_download(model, revision=revision, allow_patterns=list(READ)))
    return sorted(file for pattern in READ for file in path.glob(pattern))


def identity(model: str, revision: str | None) -> dict[str, str]:
    """The hash of each file by its name."""
    return {path.name: file_hash(path) for path in files(model, revision)}


def bytes_on_disk(model: str, revision: str | None) -> int:
    """Bytes of the weights."""
    return sum(path.stat().st_size for path in files(model, revision) if path.suffix in (".gguf", ".safetensors"))
