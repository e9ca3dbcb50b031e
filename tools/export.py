"""Export a student with its model card and results to a folder to share: `python -m tools.export FOLDER`.

The results are those of metrics/metrics.json. A student that changed since its evaluation is refused.
"""

import argparse
import json
import shutil
import subprocess
import sys
from pathlib import Path

from distill.cards import markdown, model_card
from distill.core.errors import UserError, run_main
from distill.core.files import atomic_folder, write_text
from distill.params.loading import load_params
from distill.reporting import main_table
from distill.reporting.inputs import Source, read_checked
from distill.students.runs import Run, require_model

METRICS = Path("metrics/metrics.json")


def changed_paths(stage: str, paths: set[str]) -> list[str]:
    """The paths that differ from what the stage and evaluate last wrote and read, as DVC finds.

    A model that is not in DVC's cache counts as changed, since DVC then looks no further.
    """
    command = [sys.executable, "-m", "dvc", "status", "--json", stage, "evaluate"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise UserError(f"`dvc status` failed: {done.stderr.strip()}")
    entries = [entry for stage in json.loads(done.stdout).values() for entry in stage if isinstance(entry, dict)]
    return sorted({path for entry in entries for files in entry.values() for path in files} & paths)


def results(metrics: dict[str, dict[str, float]], variant: str, seeds: int) -> str:
    """The main table as markdown, with the goals for `distilled`. Scores are means over the training seeds."""
    tables = [main_table.results(metrics)] + [main_table.goals(metrics)] * (variant == "distilled")
    means = [f"Scores of trained students are means over {seeds} training seeds; this student is one of them."] * (
        seeds > 1
    )
    return "\n\n".join([main_table.MEASURED, *means, *map(markdown.table, tables)])


def export(source: Path, folder: Path, card: str) -> None:
    """Writes the files of `source` with the given card, all or none.

    Folders in `source`, which hold intermediate students, are left out.
    """
    with atomic_folder(folder) as target:
        for path in sorted(source.iterdir()):
            if path.is_file() and path.name != model_card.NAME:
                shutil.copyfile(path, target / path.name)
        write_text(target / model_card.NAME, card)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split(":")[0])
    parser.add_argument("folder", type=Path, metavar="FOLDER", help="a folder that does not exist")
    parser.add_argument("--student", choices=tuple(model_card.ROLES), default="distilled")
    parser.add_argument("--seed", type=int, help="one of `training_seeds` in params.yaml, by default the first")
    arguments = parser.parse_args()
    folder, variant, seeds = arguments.folder, arguments.student, load_params().training_seeds
    student = Run(variant, None if variant == "init" else seeds[0] if arguments.seed is None else arguments.seed)
    if student.seed not in (None, *seeds):
        raise UserError(f"--seed must be one of `training_seeds` in params.yaml ({seeds}), got {student.seed}.")
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UserError(f"{folder} exists and is not empty. Give a folder that does not exist.")
    source = student.folder
    if not (source / model_card.NAME).is_file():
        raise UserError(f"{source} has no {model_card.NAME}. Run `dvc repro` or `dvc pull`.")
    metrics = read_checked("metrics", Source(METRICS, "evaluate"))
    require_model(student)
    if unmeasured := changed_paths(student.stage, {str(source), str(student.record), str(METRICS)}):
        raise UserError(
            f"{' and '.join(unmeasured)} changed since the last evaluation or is not in DVC's cache, so the results "
            "may be of another student. Run `dvc repro evaluate`, or restore the measured files with `dvc pull`."
        )
    text = (source / model_card.NAME).read_text(encoding="utf-8")
    block = results(metrics, variant, len(seeds))
    export(source, folder, model_card.with_results(text, variant, metrics[variant], block))
    print(f"{folder}: {variant} with its model card, {sum(path.stat().st_size for path in folder.iterdir()):,} bytes")


if __name__ == "__main__":
    run_main(main)
