"""Where what must outlive a stage's outs is kept: journals of answers, checkpoints to resume from."""

import os
from pathlib import Path

VARIABLE = "DISTILL_HOME"
DVC_COPIES = (".dvc", "tmp", "exps")


def home() -> Path:
    """The folder: the environment variable DISTILL_HOME, else .distill in the repository that owns the run.

    `dvc exp run --temp` and `--queue` run in a copy below the repository's .dvc/tmp/exps, without what git
    ignores: from there the owner is meant.
    """
    if os.environ.get(VARIABLE):
        return Path(os.environ[VARIABLE])
    parts = Path.cwd().parts
    for place in range(len(parts) - len(DVC_COPIES)):
        if parts[place : place + len(DVC_COPIES)] == DVC_COPIES:
            return Path(*parts[:place]) / ".distill"
    return Path.cwd() / ".distill"
