"""The outcome of a run: the trained student's record, its loss table and its folder."""

from pathlib import Path

import pandas as pd
import torch

from distill.core.files import Row
from distill.modeling.loading import load_model, parameter_count, save_model
from distill.students import lora
from distill.students.build import Student
from distill.training.fit import FitConfig
from distill.training.phases import Trained, intermediate_students, joined_logs, phase_folder
from distill.training.validation import Validation


def make_record(student: Student, trained: Trained, config: FitConfig, validation: Validation) -> Row:
    """The record of a run, as metrics/train/<run>.json has it, without the run's name and the hash of the weights."""
    record = student.record | ({"layers": trained.best.layers} if trained.best.layers else {})
    record |= {"loss": config.loss.kind} | _phases_record(trained)
    record |= {
        "parameters": parameter_count(trained.model),
        "validation_loss": round(trained.best.loss, 4),
        "validation_unit": validation.unit,
    }
    if config.adapter is not None:
        record |= lora.adapter_record(trained.model, config.adapter)
        if config.adapter.quantization is not None:  # the merged weights differ slightly from the trained ones
            record |= {"merged_validation_loss": round(validation.loss(trained.model.eval()), 4)}
    return record


def loss_table(trained: Trained) -> pd.DataFrame:
    """The losses as rows of step, epoch, split (train, validation), loss and phase.

    A training loss is of the variant's own kind.
    """
    rows = [(0, 0.0, "validation", trained.phases[0].first, "untrained")]
    for entry in joined_logs(trained.phases):
        for key, split in (("loss", "train"), ("validation_loss", "validation")):
            if key in entry:
                rows.append((entry["step"], entry["epoch"], split, entry[key], entry["phase"]))
    table = pd.DataFrame(rows, columns=["step", "epoch", "split", "loss", "phase"])
    return table.round({"epoch": 3, "loss": 4})


def save_students(folder: Path, student: Student, trained: Trained, checkpoints: Path, dtype: torch.dtype) -> None:
    """Writes the trained model into an existing folder, the intermediate students into folders in it."""
    save_model(trained.model.to(dtype), student.tokenizer, folder)  # type: ignore[arg-type]
    for phase in intermediate_students(trained.phases):
        model, _ = load_model(str(phase_folder(checkpoints, phase.name)), dtype)
        save_model(model, student.tokenizer, folder / phase.name)


def _phases_record(trained: Trained) -> Row:
    """Steps, epochs and response tokens of all phases; with several phases their losses and the best one."""
    phases = trained.phases
    result: Row = {name: sum(phase.counts[name] for phase in phases) for name in ("steps", "epochs", "response_tokens")}
    if len(phases) > 1:
        result["phases"] = {
            phase.name: {
                "parameters": phase.parameters,
                "layers": phase.layers,
                "epochs": phase.counts["epochs"],
                "first_validation_loss": round(phase.first, 4),
                "validation_loss": round(phase.loss, 4),
            }
            for phase in phases
        }
        result["kept"] = trained.best.name
    return result
