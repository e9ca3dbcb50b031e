"""Where what must outlive a stage's outs is kept: journals of answers, checkpoints to resume from."""

from collections.abc import Mapping
from pathlib import Path

VARIABLE = "DISTILL_HOME"
DVC_COPIES = (".dvc", "tmp", "exps")


def home(environment: Mapping[str, str], folder: Path) -> Path:
    """The environment variable DISTILL_HOME, else .distill in the repository that owns the current `folder`.

    `dvc exp run --temp` and `--queue` run in a copy below the repository's .dvc/tmp/exps, without what git
    ignores: from there the owner is meant.
    """
    if environment.get(VARIABLE):
        return Path(environment[VARIABLE])
    parts = folder.absolute().parts
    for place in range(len(parts) - len(DVC_COPIES)):
        if parts[place : place + len(DVC_COPIES)] == DVC_COPIES:
            return Path(*parts[:place]) / ".distill"
    return folder.absolute() / ".distill"
