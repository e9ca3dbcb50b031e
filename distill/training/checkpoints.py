"""Complete checkpoints, the newest one to resume from, and the folder of a run's checkpoints."""

import shutil
from pathlib import Path
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from distill.core.files import value_hash

COMPLETE = "complete"  # a file written last into a checkpoint: without it the checkpoint is half written


class MarkComplete(TrainerCallback):
    """Marks each checkpoint after its last file, so that one cut off by a kill is never resumed from."""

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        (Path(str(args.output_dir)) / f"checkpoint-{state.global_step}" / COMPLETE).touch()


def last_complete_checkpoint(folder: Path) -> Path | None:
    """The newest complete checkpoint; half-written ones are removed."""
    checkpoints = sorted(folder.glob("checkpoint-*"), key=lambda path: int(path.name.partition("-")[2]))
    for path in checkpoints:
        if not (path / COMPLETE).exists():
            shutil.rmtree(path)
    complete = [path for path in checkpoints if path.exists()]
    return complete[-1] if complete else None


def checkpoint_folder(home: Path, run: str, key: dict[str, Any]) -> Path:
    """The folder of a run's checkpoints: a run whose `key` (params, data, code, packages) differs has another one."""
    return home / "checkpoints" / f"{run}-{value_hash({'run': run} | key)[:16]}"
