"""Store the teacher's distributions for the training rows: `python -m stages.targets`.

Reads  data/clean/train.jsonl, params data_seed, runtime, teachers, targets
Writes data/targets; metrics/environment/targets.json
"""

import os
from pathlib import Path

from distill.core.errors import UserError, run_main
from distill.core.files import Row, atomic_folder, read_rows
from distill.modeling import environment, loading, runtime
from distill.modeling.chat import encode
from distill.params.loading import load_params
from distill.params.schema import Params
from distill.params.targets import Targets
from distill.targets import store
from distill.targets.statistics import write_statistics
from distill.targets.teacher_pass import TeacherPass, layer_states, log_probs_without_prompt, require_linear_logits

TRAIN = Path("data/clean/train.jsonl")
TARGETS = Path("data/targets")


def write_targets(folder: Path, rows: list[Row], params: Params, targets: Targets) -> None:
    """Runs the teacher over the rows and writes targets, statistics and hidden states of layers into the folder."""
    teacher = params.local_teacher(targets.teacher)
    dtype = runtime.compute_dtype(params.runtime.dtype)
    model, tokenizer = loading.load_teacher(teacher, dtype)
    examples = [encode(tokenizer, row) for row in rows]
    if targets.kind == "hidden_states":
        require_linear_logits(model, teacher.name, examples[0])
    source = store.describe_source(teacher, tokenizer, rows, runtime.dtype_name(dtype), targets)
    teacher_pass = TeacherPass(model, len(tokenizer), targets, params.data_seed)
    store.write_targets(
        folder, source, teacher_pass.run(examples), teacher_pass.expected_counts if targets.full else None
    )
    alone = (
        log_probs_without_prompt(model, tokenizer, examples, targets.batch_tokens)
        if targets.score_without_prompt
        else None
    )
    write_statistics(folder, [row["id"] for row in rows], teacher_pass.statistics, alone)
    if targets.layers is not None:
        (folder / store.LAYERS).mkdir()
        states = layer_states(model, examples, targets.layers, targets.batch_tokens)
        store.write_targets(folder / store.LAYERS, store.describe_layers(source, targets.layers), states)


def main() -> None:
    params = load_params()
    runtime.prepare(params.runtime.threads, params.data_seed)
    rows = list(read_rows(TRAIN, "stage clean"))
    if not rows:
        raise UserError(f"{TRAIN} has no rows: metrics/clean.json says why they were dropped.")
    with atomic_folder(TARGETS) as folder:
        if params.targets is not None:
            write_targets(folder, rows, params, params.targets)
    environment.record("targets", params.runtime)
    kind = "none" if params.targets is None else params.targets.kind
    print(f"targets of {len(rows)} rows: {kind}")


if __name__ == "__main__":
    run_main(main, os.environ)
