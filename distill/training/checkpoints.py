"""Checkpoints with the hash of each file, the newest whole one to resume from, and the folder of those of a run."""

import json
import re
import shutil
from pathlib import Path
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from distill.core.errors import UserError
from distill.core.files import Row, file_hash, read_json, value_hash

COMPLETE = "complete"  # the last file of a sealed folder, with the hashes of the others: without it, it is half written


class SealCheckpoints(TrainerCallback):
    """Seals each checkpoint after its last file."""

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        if state.is_world_process_zero:
            seal(Path(str(args.output_dir)) / f"checkpoint-{state.global_step}")


def seal(folder: Path) -> None:
    """Writes the hash of each file in the folder, so that one that is half written or changed is never used."""
    with (folder / COMPLETE).open("w", encoding="utf-8") as file:
        json.dump(_hashes(folder), file, indent=2)


def damage(folder: Path) -> str | None:
    """The difference between a folder and what was sealed, None where there is none."""
    if not (folder / COMPLETE).is_file():
        return "is half written"
    try:
        sealed, now = read_json(folder / COMPLETE, "the training"), _hashes(folder)
    except UserError:
        return f"is damaged ({COMPLETE} changed)"
    except OSError as error:
        return f"is damaged ({error.strerror})"
    changed = [name for name in sorted(sealed.keys() | now.keys()) if sealed.get(name) != now.get(name)]
    return f"is damaged ({', '.join(changed[:3])} changed)" if changed else None


def is_whole(folder: Path, name: str) -> bool:
    """Whether there is a folder as it was sealed; a damaged one is removed, with a line that names it."""
    if not folder.exists():
        return False
    reason = damage(folder)
    if reason is not None:
        print(f"{name} {reason}: removed")
        if folder.is_dir() and not folder.is_symlink():
            shutil.rmtree(folder)
        else:
            folder.unlink()
    return reason is None


def last_whole_checkpoint(folder: Path) -> Path | None:
    """The newest checkpoint that is as it was written; damaged ones that are newer are removed."""
    checkpoints = [path for path in folder.glob("checkpoint-*") if re.fullmatch(r"checkpoint-\d+", path.name)]
    newest_first = sorted(checkpoints, key=lambda path: int(path.name.partition("-")[2]), reverse=True)
    return next((path for path in newest_first if is_whole(path, path.name)), None)


def checkpoint_folder(home: Path, run: str, key: Row) -> Path:
    """The folder of a run's checkpoints: a run whose `key` (params, data, code, packages) differs has another one."""
    return home / "checkpoints" / f"{run}-{value_hash({'run': run} | key)[:16]}"


def _hashes(folder: Path) -> dict[str, str]:
    """The hash of each file in a folder but COMPLETE itself, by its path."""
    paths = [path for path in sorted(folder.rglob("*")) if path.is_file() and path != folder / COMPLETE]
    return {path.relative_to(folder).as_posix(): file_hash(path) for path in paths}
