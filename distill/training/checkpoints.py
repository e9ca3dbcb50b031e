"""Complete checkpoints and the newest one to resume from."""

import shutil
from pathlib import Path
from typing import Any

from transformers import TrainerCallback, TrainingArguments

WHOLE = "whole"  # a file written last into a checkpoint: without it the checkpoint is half written


class MarkWhole(TrainerCallback):
    """Marks each checkpoint after its last file, so that one cut off by a kill is never resumed from."""

    def on_save(self, args: TrainingArguments, state: Any, control: Any, **kwargs: Any) -> None:
        (Path(str(args.output_dir)) / f"checkpoint-{state.global_step}" / WHOLE).touch()


def last_whole_checkpoint(folder: Path) -> Path | None:
    """The newest whole checkpoint; half-written ones are removed."""
    found = sorted(folder.glob("checkpoint-*"), key=lambda path: int(path.name.partition("-")[2]))
    for path in found:
        if not (path / WHOLE).exists():
            shutil.rmtree(path)
    whole = [path for path in found if path.exists()]
    return whole[-1] if whole else None
