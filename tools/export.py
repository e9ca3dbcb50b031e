"""Copies a student into a folder to share, its model card with the results: `python -m tools.export FOLDER`.

The results are those of metrics/metrics.json; a student that was not measured as it stands is refused.
"""

import argparse
import json
import shutil
import subprocess
import sys
from pathlib import Path

from distill.cards import markdown, model_card
from distill.core.errors import UserError, run_main
from distill.core.files import atomic_folder, read_json, write_text
from distill.params.loading import load_params
from distill.reporting import report
from distill.students.runs import Run, require_model

METRICS = Path("metrics/metrics.json")


def changed(stage: str, paths: set[str]) -> list[str]:
    """Those of the paths that DVC finds to differ from what the stage and evaluate last wrote and read.

    A model that is not in DVC's cache counts as one, since DVC does not look further then.
    """
    command = [sys.executable, "-m", "dvc", "status", "--json", stage, "evaluate"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise UserError(f"`dvc status` failed: {done.stderr.strip()}")
    entries = [entry for found in json.loads(done.stdout).values() for entry in found if isinstance(entry, dict)]
    return sorted({path for entry in entries for files in entry.values() for path in files} & paths)


def results(metrics: dict[str, dict[str, float]], variant: str, seeds: int) -> str:
    """The main table, and for `distilled` the goals, as markdown; of several training seeds it has the means."""
    tables = [report.results(metrics)] + [report.goals(metrics)] * (variant == "distilled")
    means = [f"Trained students have the mean over {seeds} training seeds; this is one of them."] * (seeds > 1)
    return "\n\n".join([report.MEASURED, *means, *map(markdown.table, tables)])


def export(source: Path, folder: Path, card: str) -> None:
    """Writes the folder whole or not at all: the files of `source`, and the card in the place of its own.

    Folders in it, which hold the larger students of a ladder, stay behind.
    """
    with atomic_folder(folder) as target:
        for path in sorted(source.iterdir()):
            if path.is_file() and path.name != model_card.NAME:
                shutil.copyfile(path, target / path.name)
        write_text(target / model_card.NAME, card)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split(":")[0])
    parser.add_argument("folder", type=Path, metavar="FOLDER", help="a folder that does not exist yet")
    parser.add_argument("--student", choices=tuple(model_card.ROLES), default="distilled")
    parser.add_argument("--seed", type=int, help="of the training; the first of `seeds` in params.yaml by default")
    arguments = parser.parse_args()
    folder, variant, seeds = arguments.folder, arguments.student, load_params().training_seeds
    student = Run(variant, None if variant == "init" else seeds[0] if arguments.seed is None else arguments.seed)
    if student.seed not in (None, *seeds):
        raise UserError(f"--seed: must be one of the measured `seeds` of params.yaml ({seeds}), given {student.seed}.")
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UserError(f"{folder} exists and is not empty: give a folder that does not exist yet.")
    source = student.folder
    if not (source / model_card.NAME).is_file():
        raise UserError(f"{source} has no {model_card.NAME}: make the student with `dvc repro`, or `dvc pull` it.")
    metrics = read_json(METRICS, "stage evaluate")
    report.require(metrics, METRICS, "evaluate", report.NUMBERS["metrics"])
    require_model(student)
    if unmeasured := changed(student.stage, {str(source), str(student.record), str(METRICS)}):
        raise UserError(
            f"{' and '.join(unmeasured)} changed since the last measurement or is not in DVC's cache, so that the "
            "results may not be this student's. Run `dvc repro evaluate`, or bring back what was measured: `dvc pull`."
        )
    text = (source / model_card.NAME).read_text(encoding="utf-8")
    block = results(metrics, variant, len(seeds))
    export(source, folder, model_card.with_results(text, variant, metrics[variant], block))
    print(f"{folder}: {variant} with its model card, {sum(path.stat().st_size for path in folder.iterdir()):,} bytes")


if __name__ == "__main__":
    run_main(main)
