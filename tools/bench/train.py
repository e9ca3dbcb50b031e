"""The same student from the same teacher on the same rows, by TRL's GKDTrainer and by ours, in turn.

`stored` trains models/init, the default student, with its stored targets; `trl`, `stored_full_vocabulary` and `online`
train eight of the teacher's layers, evenly spaced, with its whole vocabulary, `online` with the teacher in the step.
All see the same rows in the same batches at the same learning rates in runtime.dtype, each in a process
of its own that loads the untrained student from a folder. Each round has an order of its own. Tokens are those of
responses in the teacher's tokenizer, end of turn included; of several rounds the fastest run counts, and the mean of
their held-out KL beside that of each: after few steps the order alone changes it by some percent.
"""

import os
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from distill.core.errors import UserError
from distill.core.files import Row, atomic_folder, file_hash, read_json, read_rows, write_rows
from distill.core.home import home
from distill.modeling import loading, runtime
from distill.modeling.chat import Example, encode
from distill.params.loading import load_params
from distill.params.schema import Params
from distill.students import pruning
from distill.training.sampler import training_order
from tools import held_out_kl
from tools.bench import plan as plans
from tools.bench.ours import TRAIN

VALIDATION = Path("data/clean/validation.jsonl")
INIT = Path("models/init")
REQUIREMENTS = Path("requirements-bench.txt")
COMMAND = "python -m tools.bench train"


@dataclass(frozen=True)
class Options:
    """Optimiser steps, those of them before the clock starts, rounds, layers of the full-vocabulary student, TRL."""

    steps: int
    warmup: int
    rounds: int
    layers: int
    trl: bool


@dataclass(frozen=True)
class Prepared:
    """What is trained on, in batches of `size`, and what the loss is measured on."""

    examples: list[Example]
    size: int
    tokenizer: Any
    validation: list[Row]
    stored: held_out_kl.StoredTargets


def planned(examples: list[Example], size: int, options: Options, seed: int) -> plans.Plan:
    """The first examples, as many as the steps of `size` need, in the order in which stage `train` would take them."""
    if not 0 < options.warmup < options.steps:
        raise UserError(f"--warmup must be at least 1 and below --steps, {options.steps}, given {options.warmup}.")
    needed = options.steps * size
    if len(examples) < needed:
        raise UserError(f"{TRAIN}: {options.steps} steps need {needed} rows, there are {len(examples)}: lower --steps.")
    lengths = [len(example.prompt) + len(example.response) for example in examples[:needed]]
    return plans.Plan(options.steps, options.warmup, training_order(lengths, size, 1, seed))


def timed_tokens(examples: list[Example], plan: plans.Plan) -> int:
    """Response tokens of the steps after the warm-up."""
    first = plan.warmup * len(plan.order) // plan.steps
    return sum(len(examples[place].response) for place in plan.order[first:])


def trl_row(example: Example) -> dict[str, Any]:
    """The example in the columns of TRL's collator, which wants a prompt though it is given the ids."""
    mask = [0] * len(example.prompt) + [1] * len(example.response)
    return {"prompt": "", "input_ids": [*example.prompt, *example.response], "completion_mask": mask}


def prepare(folder: Path, params: Params, options: Options) -> Prepared:
    """Writes teacher and student into the folder."""
    targets = params.targets
    if targets is None or targets.kind != "top_k" or not INIT.is_dir():
        raise UserError(f"{COMMAND} needs targets of kind top_k and {INIT}. Run `dvc repro` with them.")
    spec = params.local_teacher(targets.teacher)
    if spec.chat_template is not None:
        raise UserError(f"{COMMAND} needs targets of a teacher with its own chat template, got {spec.name!r}.")
    teacher, tokenizer = loading.load_teacher(spec, torch.float32)
    kept = pruning.select_layers(teacher.config.num_hidden_layers, options.layers, "uniform")
    network = pruning.prune(teacher, pruning.KeptParts(kept), range(teacher.config.vocab_size))
    for name, model in ((plans.TEACHER, teacher), (plans.FULL, network)):
        model.save_pretrained(folder / name)
        tokenizer.save_pretrained(folder / name)
    optimization = params.train.optimization
    examples = [encode(tokenizer, row, optimization.max_length) for row in read_rows(TRAIN, "stage weight")]
    validation = list(read_rows(VALIDATION, "stage clean"))
    stored = held_out_kl.teacher_targets(teacher, tokenizer, validation, targets.top_k)
    size = optimization.batch_size * optimization.gradient_accumulation_steps
    return Prepared(examples, size, tokenizer, validation, stored)


def draw(folder: Path, prepared: Prepared, options: Options, seed: int) -> int:
    """Writes the plan of a round and TRL's rows into the folder; returns the response tokens of its timed steps."""
    plan = planned(prepared.examples, prepared.size, options, seed)
    plans.write(folder, plan)
    write_rows(folder / plans.ROWS, (trl_row(prepared.examples[place]) for place in plan.order))
    return timed_tokens(prepared.examples, plan)


def library(folder: Path) -> Path:
    """The folder below this one with the pinned TRL alone in it, installed if it is not yet there."""
    folder = folder / f"trl-{file_hash(REQUIREMENTS)[:16]}"
    if not folder.exists():
        with atomic_folder(folder) as target:
            command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--require-hashes"]
            done = subprocess.run([*command, "--target", str(target), "-r", str(REQUIREMENTS)], check=False)
            if done.returncode:
                raise UserError(f"pip could not install {REQUIREMENTS}; --no-trl measures ours alone.")
    return folder


def measured(folder: Path, name: str, trl: Path | None) -> dict[str, float]:
    """What one run in a process of its own reports; the student that it trained is left in folder/name."""
    commands = {
        "trl": ["gkd", str(folder)],
        "stored_full_vocabulary": ["ours", str(folder), name, str(folder / plans.FULL), "stored"],
        "stored": ["ours", str(folder), name, str(INIT), "stored"],
        "online": ["ours", str(folder), name, str(folder / plans.FULL), "online"],
    }
    module, *arguments = commands[name]
    environment = os.environ | {"HF_HUB_OFFLINE": "1"}
    if trl is not None:
        environment["PYTHONPATH"] = os.pathsep.join(filter(None, [str(trl), os.environ.get("PYTHONPATH")]))
    command = [sys.executable, "-m", f"tools.bench.{module}", *arguments]
    if subprocess.run(command, env=environment, stdout=sys.stderr, check=False).returncode:
        raise UserError(f"the run {name!r} failed; what it said is above.")
    return read_json(folder / name / plans.RESULT, COMMAND)


def summary(runs: dict[str, list[dict[str, float]]]) -> dict[str, Any]:
    """The figures of the fastest run of each name, what they are beside TRL's, and the KL of all its runs."""
    best = {name: max(found, key=lambda run: run["tokens"] / run["seconds"]) for name, found in runs.items()}
    result: dict[str, Any] = {}
    for name, run in best.items():
        result[f"{name}_tokens_per_s"] = round(run["tokens"] / run["seconds"], 1)
        result[f"{name}_tokens_per_processor_s"] = round(run["tokens"] / run["processor_seconds"], 1)
        result[f"{name}_peak_gb"] = round(run["peak_gb"], 3)
        kls = [one["kl"] for one in runs[name]]
        result[f"{name}_kl"] = round(sum(kls) / len(kls), 4)
        result[f"{name}_kl_of_rounds"] = [round(kl, 4) for kl in kls]
    result["mfu"] = round(best["stored"]["mfu"], 3)
    result["full_vocabulary_mfu"] = round(best["stored_full_vocabulary"]["mfu"], 3)
    if "trl" in best:
        theirs = best.pop("trl")
        pace = theirs["tokens"] / theirs["seconds"]
        for name, run in best.items():
            result[f"{name}_speedup"] = round(run["tokens"] / run["seconds"] / pace, 2)
            result[f"{name}_memory_fraction"] = round(run["peak_gb"] / theirs["peak_gb"], 3)
    return result


def measure_train(options: Options) -> dict[str, Any]:
    """Trains with each in turn and returns the section `train` of metrics/bench.json."""
    params = load_params()
    runtime.prepare(params.runtime.threads, params.data_seed)
    names = ["trl"] * options.trl + ["stored_full_vocabulary", "stored", "online"]
    trl = library(home(os.environ, Path.cwd())) if options.trl else None
    runs: dict[str, list[dict[str, float]]] = {name: [] for name in names}
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        prepared = prepare(folder, params, options)
        for place in range(options.rounds):
            tokens = draw(folder, prepared, options, params.data_seed + place)
            for name in names:
                run = measured(folder, name, trl) | {"tokens": tokens}
                run["kl"] = held_out_kl.stored_divergence(
                    folder / name, prepared.tokenizer, prepared.validation, prepared.stored
                )
                runs[name].append(run)
    fixed = {
        "steps": options.steps,
        "rounds": options.rounds,
        "timed_tokens": tokens,
        "batch_size": params.train.optimization.batch_size,
        "dtype": runtime.dtype_name(runtime.compute_dtype(params.runtime.dtype)),
        "threads": params.runtime.threads,
    }
    return fixed | summary(runs)
