"""Tiny inputs of stage plot, a tiny metrics/metrics.json, and the stage by its real command."""

import contextlib
import json
import os
import subprocess
import sys
from pathlib import Path

import pandas as pd
import yaml

from distill.reporting import score_tables
from distill.reporting.inputs import TIMINGS, Inputs, read_inputs, read_log
from distill.students.runs import TRAINED, Run
from stages import plot

ROOT = Path(__file__).parents[2]
SCORES = {
    "accuracy": {"teacher": 0.99, "init": 0.3, "sft": 0.78, "distilled": 0.77},
    "perplexity": {"teacher": 2.1, "init": 2300.0, "sft": 9.9, "distilled": 6.0},
}
LOG = """step,epoch,split,loss,phase
0,0.0,validation,7.8,untrained
5,0.5,train,2.5,student
10,1.0,validation,2.2,student
10,1.0,train,1.5,student
"""
METHODS = """method,seeds,items,perplexity,perplexity_ci_low,perplexity_ci_high,top1_agreement,top1_agreement_ci_low,\
top1_agreement_ci_high,accuracy,accuracy_ci_low,accuracy_ci_high,rouge_l,rouge_l_ci_low,rouge_l_ci_high,\
perplexity_minus_sft,perplexity_minus_sft_ci_low,perplexity_minus_sft_ci_high,bytes_a_token,response_tokens,\
held_out_kl,minutes,commit
sft,3,40,9.5,9,10,0.5,0.4,0.6,0.7,0.6,0.8,0.3,0.2,0.4,,,,,9000,1.5,2,0123abc
forward_kl,3,40,6.5,6,7,0.6,0.5,0.7,0.7,0.6,0.8,0.3,0.2,0.4,-3,-3.5,-2.5,388,9000,0.9,2.5,0123abc
mixture,3,40,9.75,9,11,0.5,0.4,0.6,0.6,0.5,0.7,0.3,0.2,0.4,0.25,-0.5,1,388,9000,,2.5,0123abc
"""
ROW = {
    "accuracy": 0.91234, "accuracy_ci_low": 0.89, "accuracy_ci_high": 0.93, "accuracy_above_chance": 0.88,
    "perplexity": 2.2, "top1_agreement": 0.98, "rouge_l": 0.7, "parameters": 134_515_008, "bytes": 98_362_432,
}  # fmt: skip
GOALS = {
    "accuracy_ratio": 0.9, "accuracy_ratio_above_chance": 0.87, "perplexity": 21.0, "compression_ratio": 0.2499,
    "latency_gain": 3.1, "met": 3,
}  # fmt: skip
METRICS = {
    "teacher": ROW,
    "init": ROW | {"accuracy": 0.25, "perplexity": 251_234.5},
    "sft": ROW | {"perplexity": 25.0},
    "distilled": ROW | {"perplexity": 21.0},
    "goals": GOALS,
}


def write(path: Path, value: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value))


def inputs(folder: Path) -> Path:
    """Writes all inputs of the stage into the folder."""
    models, metrics, timings = {}, {}, {}
    for name in score_tables.MODELS:
        size = 134_000_000 if name == "teacher" else 33_000_000
        values = {score: SCORES.get(score, SCORES["accuracy"])[name] for score in score_tables.SCORES}
        models[name] = {s: {"value": v, "ci_low": v * 0.95, "ci_high": v * 1.01} for s, v in values.items()}
        metrics[name] = {key: values[key] for key in ("accuracy", "perplexity", "top1_agreement", "rouge_l")} | {
            "accuracy_ci_low": values["accuracy"] * 0.95, "accuracy_ci_high": values["accuracy"] * 1.01,
            "parameters": size, "bytes": 2 * size,
        }  # fmt: skip
        slow = 4.0 if name == "teacher" else 1.0
        timings[name] = {t: {"median": slow, "low": slow * 0.9, "high": slow * 1.2} for t in TIMINGS}
    metrics["goals"] = {
        "accuracy_ratio": 0.778, "accuracy_ratio_above_chance": 0.7, "perplexity": 6.0, "compression_ratio": 0.246,
        "latency_gain": 4.0, "met": 3,
    }  # fmt: skip
    sample = {
        "id": "a", "messages": [{"role": "user", "content": "Why | <b>?"}], "reference": "Because.",
        "generated": dict.fromkeys(score_tables.MODELS, "So *it* is."),
    }  # fmt: skip
    metrics_folder = folder / "metrics"
    write(metrics_folder / "metrics.json", metrics)
    write(metrics_folder / "evaluate.json", {"items": 400, "held_out": 1488, "generations": 100, "models": models})
    write(metrics_folder / "latency.json", {"models": timings, "prompt_tokens": 8, "new_tokens": 4, "num_runs": 3})
    splits = {name: {"rows": 2, "topics": 1, "words": 9} for name in ("train", "validation", "test")}
    counts = {"requested": 8, "kept": 6, "dropped": 2, "reasons": {"too_short": 2, "empty": 0}, "splits": splits}
    write(metrics_folder / "clean.json", counts)
    spread = dict.fromkeys(("min", "low", "median", "high", "max", "mean"), 1.0)
    teacher = {"name": "smollm2", "model": "a-model", "license": None, "rows": 2, "words": 5, "weight_fraction": 1.0}
    weight = {"kind": "uniform", "confidence": "margin", "strength": 0.0, "ess_fraction": 1.0}
    weight |= {"correlation_with_length": None, "words": spread, "weights": spread, "degraded": {}}
    write(metrics_folder / "weight.json", weight | {"teachers": [teacher]})
    write(metrics_folder / "samples.jsonl", sample)
    write(metrics_folder / "regressions.jsonl", sample | {"teacher_nll": 1.0, "distilled_nll": 6.0, "tokens": 2})
    training = {"variant": "distilled", "source": "smollm2", "loss": "forward_kl", "steps": 2, "response_tokens": 9}
    write(metrics_folder / "train/distilled-20.json", training | {"parameters": 33_000_000})
    (metrics_folder / "methods.csv").write_text(METHODS)
    for name in ("sft", "distilled"):
        (metrics_folder / f"train/{name}-20_log.csv").write_text(LOG)
    weighted = folder / "data/weighted/train.jsonl"
    weighted.parent.mkdir(parents=True)
    row = {"prompt_id": "a", "topic": "t", "teacher": "smollm2", "messages": sample["messages"], "confidence": None}
    rows = [row | {"id": f"a@{n}", "response": "a b c"[:n], "weight": w} for n, w in ((5, 1.4), (3, 0.6))]
    weighted.write_text("".join(json.dumps(one) + "\n" for one in rows))
    params = yaml.safe_load((ROOT / "params.yaml").read_text()) | {"training_seeds": [20]}
    (folder / "params.yaml").write_text(yaml.safe_dump(params))
    return folder


def run(folder: Path) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    line = [sys.executable, "-W", "error", "-m", "stages.plot"]
    return subprocess.run(line, cwd=folder, env=environment, capture_output=True, text=True, check=False)


def read(folder: Path) -> Inputs:
    """The inputs as the stage reads them."""
    run = Run("distilled", 20)
    sources = plot.SOURCES | {"record": plot.Source(run.record, run.stage)}
    with contextlib.chdir(folder):
        return read_inputs(sources, plot.METHODS, 6)


def read_logs(folder: Path) -> pd.DataFrame:
    """The losses of the trained variants."""
    with contextlib.chdir(folder):
        return pd.concat([read_log(Run(variant, 20)) for variant in TRAINED])
