"""A small benchmark of files: a task for lm-eval with data of its own, as a user would write one."""

import json
from pathlib import Path

YAML = """task: colours
dataset_path: json
dataset_kwargs:
  data_files:
    train: {folder}/train.jsonl
    test: {folder}/test.jsonl
fewshot_split: train
fewshot_config:
  sampler: first_n
test_split: test
output_type: multiple_choice
doc_to_text: question
doc_to_choice: options
doc_to_target: answer
metric_list:
  - metric: acc
    aggregation: mean
    higher_is_better: true
metadata:
  version: 1.0
"""
SETTINGS = {"num_fewshot": 0, "apply_chat_template": False, "fewshot_as_multiturn": False, "revision": None}


def write(folder: Path, test: int = 5) -> Path:
    """Writes the task and its data, and gives the path of its YAML file."""
    folder.mkdir(parents=True, exist_ok=True)
    for split, count in (("train", 3), ("test", test)):
        rows = [
            {"question": f"{split} number {number} is", "options": ["red", "green"], "answer": number % 2}
            for number in range(count)
        ]
        (folder / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    path = folder / "colours.yaml"
    path.write_text(YAML.format(folder=folder.resolve()))
    return path
