"""Load and save models and tokenizers; hash their files."""

import importlib.util
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig, PreTrainedModel, PreTrainedTokenizerFast

from distill.core.errors import UserError
from distill.core.files import file_hash, value_hash
from distill.modeling import checks, few_shot
from distill.modeling.runtime import device
from distill.params.teachers import LocalTeacher

LOADED_FROM = ("is_local", "local_files_only")  # what transformers notes of the way that a tokenizer was loaded
MODEL_FILES = ("*.safetensors", "*.json", "*.jinja")


def locate(model: str) -> str:
    """The folder, file or hub name of a `model` param; `package:NAME/FILE` is a file of a Python package.

    Raises UserError for a missing package or file.
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


def load_model(
    model: str, dtype: torch.dtype, revision: str | None = None
) -> tuple[PreTrainedModel, PreTrainedTokenizerFast]:
    """A causal language model in eval mode on the device, and its tokenizer.

    A GGUF file is dequantized to `dtype`. Raises UserError for a model that cannot be loaded, and for a checkpoint
    whose weights do not fit its configuration or are not finite.
    """
    tokenizer = load_tokenizer(model, revision)
    source, options = _source(model, revision)
    if "gguf_file" in options:
        options["quantization_config"] = GgufConfig(dequantize=True)
    network, report = _from_pretrained(
        AutoModelForCausalLM, source, model, dtype=dtype, use_safetensors=True, output_loading_info=True, **options
    )
    checks.require_all_weights(model, network, report)
    if "gguf_file" in options and hasattr(network.config, "quantization_config"):
        del network.config.quantization_config  # the weights are plain now, and must be saved as such
    _settle_generation_config(network)
    network = network.to(device()).eval()
    checks.require_logits(model, network, len(tokenizer))
    return network, tokenizer


def load_tokenizer(model: str, revision: str | None = None) -> PreTrainedTokenizerFast:
    """The model's fast tokenizer. Raises UserError as `load_model` does."""
    source, options = _source(model, revision)
    tokenizer = _from_pretrained(AutoTokenizer, source, model, **options)
    if not tokenizer.is_fast:
        raise UserError(f"model {model!r} has no fast tokenizer (tokenizer.json), which this project needs.")
    return tokenizer


def load_teacher(teacher: LocalTeacher, dtype: torch.dtype) -> tuple[PreTrainedModel, PreTrainedTokenizerFast]:
    """A local teacher and its tokenizer. Raises UserError as `load_model` and `load_teacher_tokenizer` do."""
    tokenizer = load_teacher_tokenizer(teacher)
    return load_model(teacher.model, dtype, teacher.revision)[0], tokenizer


def load_teacher_tokenizer(teacher: LocalTeacher) -> PreTrainedTokenizerFast:
    """The teacher's tokenizer, with the chat template of its params.

    Raises UserError for a GGUF file that differs from the sha256 in params.
    """
    if teacher.sha256 is not None:
        path = Path(locate(teacher.model))
        digest = file_hash(path) if path.is_file() else None
        if digest != teacher.sha256:
            raise UserError(f"model {teacher.model!r} must have sha256 {teacher.sha256}, as in params, got {digest}.")
    tokenizer = load_tokenizer(teacher.model, teacher.revision)
    if teacher.chat_template == "few_shot":
        tokenizer.chat_template = few_shot.TEMPLATE
    return tokenizer


def save_model(model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, folder: Path) -> None:
    """Writes a Hugging Face folder. Raises UserError for weights that are not finite, and for a full disk."""
    if wrong := checks.not_finite(model):
        raise UserError(
            f"A model must have finite weights to be saved, got nan or infinity in {len(wrong)} tensors "
            f"({', '.join(wrong[:3])}). Nothing was replaced. Lower train.optimization.learning_rate, or set "
            "train.save_dtype to float32."
        )
    try:
        model.save_pretrained(folder)
        for name in LOADED_FROM:
            tokenizer.init_kwargs.pop(name, None)
        tokenizer.save_pretrained(folder)
    except Exception as error:  # safetensors and tokenizers raise no OSError and no class of their own
        if "os error 28" not in str(error):
            raise
        raise UserError(f"{folder} cannot be written ({error}). Free some space and run the same again.") from None


def parameter_count(network: torch.nn.Module) -> int:
    """Number of weights; tied ones count once."""
    return sum(parameter.numel() for parameter in network.parameters())


def model_files(model: str, revision: str | None) -> list[Path]:
    """The GGUF file, or weights, configuration, tokenizer and template of a folder or of the hub's local cache."""
    path = Path(locate(model))
    if path.is_file():
        return [path]
    if not path.is_dir():
        from huggingface_hub import snapshot_download

        try:
            path = Path(snapshot_download(model, revision=revision, allow_patterns=list(MODEL_FILES)))
        except (OSError, ValueError) as error:  # no such name, no network, not in the cache
            raise checks.load_error(model, error) from None
    return sorted(file for pattern in MODEL_FILES for file in path.glob(pattern))


def file_hashes(model: str, revision: str | None) -> dict[str, str]:
    """The hash of each file by its name."""
    return {path.name: file_hash(path) for path in model_files(model, revision)}


def identity(teacher: LocalTeacher) -> str | None:
    """The SHA-256 that params pin, else one of the teacher's files: weights, configuration, tokenizer, template.

    None for a model that is not there, which cannot respond either.
    """
    if teacher.sha256 is not None:
        return teacher.sha256
    try:
        return value_hash(file_hashes(teacher.model, teacher.revision))
    except UserError:
        return None


def weight_bytes(model: str, revision: str | None) -> int:
    """Bytes of the weights."""
    return sum(path.stat().st_size for path in model_files(model, revision) if path.suffix in (".gguf", ".safetensors"))


def _source(model: str, revision: str | None) -> tuple[str, dict[str, Any]]:
    """The folder or hub name for `from_pretrained`, and its options."""
    path = locate(model)
    if path.endswith(".gguf"):
        if not Path(path).is_file():
            raise UserError(f"model {model!r}: there is no such file.")
        return str(Path(path).parent), {"gguf_file": Path(path).name}
    return path, {"revision": revision} if revision else {}


def _from_pretrained(kind: Any, source: str, model: str, **options: Any) -> Any:
    """What a loader of transformers makes. Raises UserError for whatever it raises: files of others have any fault."""
    try:
        checks.require_files_inside(Path(source))
        return kind.from_pretrained(source, trust_remote_code=False, **options)
    except Exception as error:  # noqa: BLE001 (tokenizers, safetensors and gguf raise classes of their own)
        raise checks.load_error(model, error) from None


def _settle_generation_config(network: PreTrainedModel) -> None:
    """Lets a `generation_config` with sampling parameters sample: transformers saves no other one."""
    try:
        network.generation_config.validate(strict=True)
    except ValueError:
        network.generation_config.do_sample = True
