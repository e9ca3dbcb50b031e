"""Curves of a training: DVCLive's files, and a tracker of the user's choice in addition."""

import contextlib
import importlib.util
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from dvclive import Live
from scmrepo.exceptions import SCMError
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from distill.core.errors import UserError
from distill.core.numbers import round_number

# key of the Trainer's log: metric of DVCLive, whose file is plots/metrics/<metric>.tsv
METRICS = {
    "loss": "train/loss",
    "learning_rate": "train/learning_rate",
    "grad_norm": "train/gradient_norm",
    "validation_loss": "validation/loss",
}


class CommitlessLive(Live):
    """DVCLive that works without a git commit: it needs one though it saves no experiment."""

    def _init_dvc(self) -> None:
        with contextlib.suppress(SCMError):
            super()._init_dvc()


class DVCLiveCurves(TrainerCallback):
    """Writes the Trainer's log as DVCLive's files in `folder`, step by step.

    The log that a checkpoint holds is written again, so that a resumed run leaves the same bytes as one without an
    interruption; so are the entries of `earlier` phases of the same run, which took `start` steps. DVCLive saves no
    experiment, writes no dvc.yaml and monitors no machine.
    """

    def __init__(self, folder: Path, untrained: float, earlier: Sequence[dict[str, Any]] = (), start: int = 0) -> None:
        self.folder = folder
        self.untrained = untrained  # validation loss before training, in nats per token
        self.earlier = earlier
        self.start = start

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        if state.is_world_process_zero:
            self.live = CommitlessLive(str(self.folder), save_dvc_exp=False, dvcyaml=None)
            for entry in [{"step": 0, "validation_loss": self.untrained}, *self.earlier]:
                self.write(entry)
            for entry in state.log_history:
                self.write(entry | {"step": self.start + entry["step"]})

    def on_log(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        if state.is_world_process_zero:
            entry = state.log_history[-1]
            self.write(entry | {"step": self.start + entry["step"]})

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        if state.is_world_process_zero:
            self.live.end()

    def write(self, entry: dict[str, Any]) -> None:
        """One entry of the log, without its timings."""
        metrics = {metric: entry[key] for key, metric in METRICS.items() if key in entry}
        self.live.step = entry["step"]
        for metric, value in metrics.items():
            self.live.log_metric(metric, round_number(value))
        if metrics:
            self.live.next_step()


def require(tracker: str | None) -> None:
    """Raises UserError where the tracker's package is not installed."""
    if tracker is not None and importlib.util.find_spec(tracker) is None:
        raise UserError(
            f"train.report_to: {tracker} is not installed: `make trackers` installs it, or set it to null. DVCLive's "
            "curves are written in any case."
        )


def offline(folder: Path) -> dict[str, str]:
    """Environment variables by which every tracker writes below `folder` and calls no server."""
    return {
        "DVC_STUDIO_OFFLINE": "true",
        "WANDB_MODE": "offline",
        "WANDB_DIR": str(folder),
        "WANDB_CACHE_DIR": str(folder / "wandb/cache"),
        "WANDB_PROJECT": "distill",
        "MLFLOW_TRACKING_URI": f"sqlite:///{folder / 'mlflow.db'}",
        "MLFLOW_EXPERIMENT_NAME": "distill",
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "TRACKIO_DIR": str(folder / "trackio"),
    }
