"""Folder of the state that must survive `dvc repro`: journals of responses, checkpoints, caches."""

from collections.abc import Mapping
from pathlib import Path

VARIABLE = "DISTILL_HOME"
DVC_COPIES = (".dvc", "tmp", "exps")  # the folder below which DVC copies the repository to run experiments


def home(environment: Mapping[str, str], folder: Path) -> Path:
    """The path in the environment variable DISTILL_HOME, else `.distill` in the repository at `folder`.

    `dvc exp run --temp` and `--queue` run in a copy of the repository below DVC_COPIES, without the files that git
    ignores. From such a copy the result is `.distill` of the original repository.
    """
    if environment.get(VARIABLE):
        return Path(environment[VARIABLE])
    parts = folder.absolute().parts
    for depth in range(len(parts) - len(DVC_COPIES)):
        if parts[depth : depth + len(DVC_COPIES)] == DVC_COPIES:
            return Path(*parts[:depth]) / ".distill"
    return folder.absolute() / ".distill"
