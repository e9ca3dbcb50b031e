"""The files that a model is loaded from: which bytes it is, and how many its weights take on disk."""

from pathlib import Path

from distill import models
from distill.files import file_hash

READ = ("*.safetensors", "*.json", "*.jinja")


def files(model: str, revision: str | None) -> list[Path]:
    """The GGUF file, or weights, configuration, tokenizer and template of a folder or of the hub's local cache."""
    path = Path(models.locate(model))
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
