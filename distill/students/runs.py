"""The runs that make a student each: init, and sft and distilled once for every training seed.

A run has one name in its stage, its files and its model's folder. DVC's deps cannot list what a list of params
names, so that `evaluate` depends on the records of all runs, small files in git with the hash of the run's weights,
and reads the models that params name, each only where it matches its record.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from distill.core.errors import UserError
from distill.core.files import file_hash, read_json, value_hash

MODELS = Path("models")
METRICS = Path("metrics")
TRAINED = ("sft", "distilled")


@dataclass(frozen=True)
class Run:
    """A variant and its training seed, None for init, which no training seed changes."""

    variant: str
    seed: int | None

    @classmethod
    def of_stage(cls, variant: str, stage: str) -> Self:
        """The variant's run of a DVC stage, such as `sft@20`. Raises UserError for any other text."""
        name = re.fullmatch(rf"(?:.*:)?{variant}@([0-9]{{1,10}})", stage)
        if name is None:
            raise UserError(
                f"{variant} needs a training seed, a whole number, got stage {stage[:60]!r}. Fix training_seeds in "
                f"params.yaml, or run `python -m stages.train {variant} SEED`."
            )
        return cls(variant, int(name[1]))

    @property
    def name(self) -> str:
        """`init` or `distilled-20`."""
        return self.variant if self.seed is None else f"{self.variant}-{self.seed}"

    @property
    def stage(self) -> str:
        """Its stage in dvc.yaml."""
        return self.variant if self.seed is None else f"{self.variant}@{self.seed}"

    @property
    def folder(self) -> Path:
        """Where its model is."""
        return MODELS / self.name

    @property
    def record(self) -> Path:
        """Its metrics file."""
        folder = METRICS if self.seed is None else METRICS / "train"
        return folder / f"{self.name}.json"


def students(seeds: Sequence[int]) -> list[Run]:
    """All runs of these training seeds, variant by variant."""
    return [Run("init", None), *(Run(variant, seed) for variant in TRAINED for seed in seeds)]


def weights_hash(folder: Path) -> str:
    """One SHA-256 for all safetensors files of a model."""
    return value_hash({file.name: file_hash(file) for file in sorted(folder.glob("*.safetensors"))})


def require_model(run: Run) -> None:
    """Raises UserError where the run's model is missing or does not match its record."""
    if not (run.folder / "model.safetensors").exists():
        raise UserError(
            f"{run.folder} has no model: stage {run.stage} writes it (`dvc repro {run.stage}`, or "
            f"`dvc pull {run.stage}` where a colleague has pushed it)."
        )
    if read_json(run.record, f"stage {run.stage}").get("weights") != weights_hash(run.folder):
        raise UserError(
            f"{run.folder} is not the model that {run.record} describes. Restore both with "
            f"`dvc checkout {run.stage}`, or make them again with `dvc repro --force --single-item {run.stage}`."
        )
