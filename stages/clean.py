"""Filter, deduplicate and decontaminate the responses, and split them by topic: `python -m stages.clean`.

Reads  data/raw/responses.jsonl, the files and tasks in clean.evaluation_texts and clean.evaluation_tasks,
       params data_seed, clean, generate.mixture.policy
Writes data/clean/{train,validation,test,dropped}.jsonl, metrics/clean.json
"""

import os
from pathlib import Path

from distill.cleaning.pipeline import clean_responses, require_rows
from distill.cleaning.responses import Responses
from distill.core.errors import run_main
from distill.core.files import write_json, write_rows
from distill.params.loading import load_params

RESPONSES = Path("data/raw/responses.jsonl")
FOLDER = Path("data/clean")
METRICS = Path("metrics/clean.json")


def main() -> None:
    """Read the responses, clean and split them, write the splits and their counts."""
    params = load_params()
    with Responses(RESPONSES) as rows:
        metrics, outputs = clean_responses(rows, params.clean, params.generate.mixture.policy, params.data_seed)
        for reason, count in metrics["reasons"].items():
            if count:
                print(f"dropped {count:6} {reason}")
        for split, counts in metrics["splits"].items():
            print(f"kept    {counts['rows']:6} {split}: {counts['topics']} topics, {counts['words']} words")
        require_rows(metrics)
        written = {name: write_rows(FOLDER / f"{name}.jsonl", output) for name, output in outputs.items()}
    assert sum(written.values()) == metrics["requested"], f"{metrics['requested']} rows, but written {written}"
    write_json(METRICS, metrics)


if __name__ == "__main__":
    run_main(main, os.environ)
