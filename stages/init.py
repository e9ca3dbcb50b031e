"""Make the student before training: `python -m stages.init`.

Reads  data/clean/{train,validation}.jsonl, data/targets, params data_seed, runtime, teachers, generate.class_labels,
       generate.prompts, targets, init, train.progressive
Writes models/init, metrics/init.json; metrics/environment/init.json

models/init is the final student in float32. With intermediate students, training starts from the first of them, which
is the folder `intermediate-1` in it.
"""

import os
from pathlib import Path

from distill.cards import model_card
from distill.cards.provenance import provenance
from distill.core.errors import run_main
from distill.core.files import Row, atomic_folder, read_rows, write_json
from distill.core.numbers import perplexity
from distill.modeling import environment, loading, runtime
from distill.params.loading import load_params
from distill.params.schema import Params
from distill.students.build import (
    FINAL,
    INTERMEDIATE,
    StoredTargets,
    Student,
    load_pretrained,
    prune_teacher,
    prune_through,
    pruning_plan,
)
from distill.students.runs import Run, weights_hash
from distill.training.validation import Validation

TRAIN, VALIDATION = Path("data/clean/train.jsonl"), Path("data/clean/validation.jsonl")
TARGETS = Path("data/targets")
FIRST = f"{INTERMEDIATE}1"


def make_students(params: Params, rows: list[Row], validation: list[Row]) -> tuple[Student, Student]:
    """The student that training starts from, and the final one: the same without intermediate students."""
    if params.init.source == "pretrained":
        student = load_pretrained(params.init)
        return student, student
    plan = pruning_plan(params.init, params.train.progressive)
    teacher = params.local_teacher(params.init.teacher)
    name = FINAL if len(plan) == 1 else FIRST
    dtype = runtime.compute_dtype(params.runtime.dtype)
    targets = StoredTargets.find(TARGETS, params.targets, params.teachers, dtype)
    first = prune_teacher(teacher, plan[0], rows, validation, targets, name)
    return first, prune_through(first, plan, rows)


def main() -> None:
    params, init = load_params(), Run("init", None)
    runtime.prepare(params.runtime.threads, params.data_seed)
    rows, validation = (list(read_rows(path, "stage clean")) for path in (TRAIN, VALIDATION))
    first, student = make_students(params, rows, validation)
    dtype = runtime.compute_dtype(params.runtime.dtype)
    measured = Validation.of(validation, student.tokenizer, params.generate.class_labels, dtype)
    parameters, loss = loading.parameter_count(student.model), measured.loss(student.model)
    print(f"{parameters:,} parameters, validation perplexity {perplexity(loss):.4g} before training")
    record = student.record | {
        "parameters": parameters,
        "validation_loss": round(loss, 4),
        "validation_unit": measured.unit,
    }
    with atomic_folder(init.folder) as folder:
        loading.save_model(student.model, student.tokenizer, folder)
        if first is not student:
            loading.save_model(first.model, first.tokenizer, folder / FIRST)
            record["start_layers"] = first.record["layers"]
        model_card.write(folder, provenance(params, init, rows, [TRAIN]), record)
    write_json(init.record, {"variant": "init", "seed": None} | record | {"weights": weights_hash(init.folder)})
    environment.record("init", params.runtime)


if __name__ == "__main__":
    run_main(main, os.environ)
