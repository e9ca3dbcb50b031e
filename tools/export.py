"""Copies a student into a folder to share, its model card with the results: `python -m tools.export FOLDER`.

The results are those of metrics/metrics.json; a student that was not measured as it stands is refused.
"""

import argparse
import json
import shutil
import subprocess
import sys
from pathlib import Path

from distill import markdown, model_card, report
from distill import params as params_file
from distill.errors import UserError, run
from distill.files import read_json, whole_folder, write_text
from distill.runs import Run

METRICS = Path("metrics/metrics.json")


def changed(paths: set[str]) -> list[str]:
    """Those of the paths that DVC finds to differ from what stages init, train and evaluate last wrote and read."""
    command = [sys.executable, "-m", "dvc", "status", "--json", "init", "train", "evaluate"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise UserError(f"`dvc status` failed: {done.stderr.strip()}")
    entries = [entry for stage in json.loads(done.stdout).values() for entry in stage if isinstance(entry, dict)]
    return sorted({path for entry in entries for files in entry.values() for path in files} & paths)


def results(metrics: dict[str, dict[str, float]], variant: str, seeds: int) -> str:
    """The main table, and for `distilled` the goals, as markdown; it says where scores are means over several seeds."""
    tables = [report.results(metrics)] + [report.goals(metrics)] * (variant == "distilled")
    means = [f"Scores of sft and distilled are means over {seeds} training seeds."] * (seeds > 1)
    return "\n\n".join([report.MEASURED, *means, *map(markdown.table, tables)])


def export(source: Path, folder: Path, card: str) -> None:
    """Writes the folder whole or not at all: the files of `source`, and the card in the place of its own."""
    with whole_folder(folder) as target:
        for path in sorted(source.iterdir()):
            if path.name != model_card.NAME:
                shutil.copyfile(path, target / path.name)
        write_text(target / model_card.NAME, card)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split(":")[0])
    parser.add_argument("folder", type=Path, metavar="FOLDER", help="a folder that does not exist yet")
    parser.add_argument("--student", choices=tuple(model_card.ROLES), default="distilled")
    parser.add_argument("--seed", type=int, help="of the training; the first of `seeds` in params.yaml if not given")
    arguments = parser.parse_args()
    folder, variant, seeds = arguments.folder, arguments.student, params_file.load().seeds
    seed = seeds[0] if arguments.seed is None else arguments.seed
    if seed not in seeds:
        raise UserError(f"--seed {seed} is none of `seeds` in params.yaml, {seeds}: its student was not measured.")
    source = Run(variant, None if variant == "init" else seed).folder
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UserError(f"{folder} exists and is not empty: give a folder that does not exist yet.")
    if not (source / model_card.NAME).is_file():
        raise UserError(f"{source} has no {model_card.NAME}: make the student with `dvc repro`, or `dvc pull` it.")
    metrics = read_json(METRICS, "stage evaluate")
    report.require(metrics, METRICS, "evaluate", report.NUMBERS["metrics"])
    if unmeasured := changed({str(source), str(METRICS)}):
        raise UserError(
            f"{' and '.join(unmeasured)} changed since the last measurement, so that the results are not this "
            "student's. Run `dvc repro evaluate`, or `dvc checkout` what was measured."
        )
    text = (source / model_card.NAME).read_text(encoding="utf-8")
    export(
        source, folder, model_card.with_results(text, variant, metrics[variant], results(metrics, variant, len(seeds)))
    )
    print(f"{folder}: {variant} with its model card, {sum(path.stat().st_size for path in folder.iterdir()):,} bytes")


if __name__ == "__main__":
    run(main)
