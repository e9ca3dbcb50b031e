"""Weights every training sample and stores the teacher's probabilities: `python -m stages.weight`.

Reads  data/clean/train.jsonl, params seed, runtime, teachers, weight
Writes data/weighted/train.jsonl, data/weighted/targets, metrics/weight.json; metrics/environment/weight.json
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.stats import spearmanr
from tqdm import tqdm

from distill import confidence, environment, models, targets
from distill import params as params_file
from distill.batches import by_length, padded
from distill.chat import Example, encode
from distill.errors import UserError, run
from distill.files import read_rows, whole_folder, write_json, write_rows
from distill.logits import response_logits
from distill.params import Weight

TRAIN = Path("data/clean/train.jsonl")
WEIGHTED = Path("data/weighted/train.jsonl")
TARGETS = Path("data/weighted/targets")
METRICS = Path("metrics/weight.json")


def weigh(rows: list[dict[str, Any]], weight: Weight, seed: int) -> tuple[list[dict[str, Any]], float]:
    """The rows with `confidence` and `weight` (mean 1), and the strength that was used."""
    lengths = [len(row["logprobs"] or row["response"].split()) for row in rows]
    known = [confidence.mean_log_prob(row["logprobs"]) for row in rows]
    if weight.scheme == "uniform":
        weights, strength = np.ones(len(rows)), 0.0
    else:
        groups = list(
            zip(
                [row["teacher"] for row in rows],
                confidence.buckets(lengths, weight.length_buckets).tolist(),
                strict=True,
            )
        )
        scores = confidence.standardise(known, groups)
        weights, strength = confidence.weights(scores, weight.strength, weight.clip, weight.min_effective_share)
    if weight.scheme == "shuffled":
        weights = np.random.default_rng(seed).permutation(weights)
    weighted = [
        {**row, "confidence": None if value is None else round(value, 4), "weight": round(float(number), 6)}
        for row, value, number in zip(rows, known, weights, strict=True)
    ]
    return weighted, strength


def summary(rows: list[dict[str, Any]], scheme: str, strength: float) -> dict[str, Any]:
    """How the weights are spread, and how they go with length (Spearman; null where a side is constant)."""
    weights = np.array([row["weight"] for row in rows])
    lengths = np.array([len(row["response"].split()) for row in rows])
    constant = weights.std() == 0 or lengths.std() == 0
    return {
        "scheme": scheme,
        "rows": len(rows),
        "without_confidence": sum(row["confidence"] is None for row in rows),
        "strength": round(strength, 4),
        "effective_share": round(confidence.effective_share(weights), 4),
        "mean": round(float(weights.mean()), 4),
        "min": round(float(weights.min()), 4),
        "max": round(float(weights.max()), 4),
        "correlation_with_length": None if constant else round(float(spearmanr(weights, lengths).statistic), 4),
    }


@torch.inference_mode()
def teacher_rows(
    model: Any, examples: list[Example], top_k: int, batch_tokens: int
) -> Iterator[tuple[str, targets.Rows]]:
    """Yields (sample id, the teacher's distributions for its response) from one teacher-forced pass."""
    with tqdm(total=sum(len(example.response) for example in examples), desc="targets", unit="token") as bar:
        for batch in by_length(examples, batch_tokens):
            ids, mask, predicts = padded([(examples[i].prompt, examples[i].response) for i in batch])
            logits = response_logits(model, ids, mask, predicts)
            start = 0
            for index in batch:
                length = len(examples[index].response)
                yield examples[index].id, targets.top_k(logits[start : start + length], top_k)
                start += length
                bar.update(length)


def main() -> None:
    params = params_file.load()
    weight = params.weight
    models.prepare(params.runtime.threads, params.seed)
    rows, strength = weigh(list(read_rows(TRAIN, "stage clean")), weight, params.seed)
    if not rows:
        raise UserError(f"{TRAIN} has no rows: metrics/clean.json says why they were dropped.")
    with whole_folder(TARGETS) as folder:
        if weight.targets is not None:
            teacher = next(teacher for teacher in params.teachers if teacher.name == weight.targets.teacher)
            assert teacher.kind == "local", "the schema refuses targets of an API teacher"
            dtype = models.compute_dtype(params.runtime.dtype)
            model, tokenizer = models.load(teacher.model, dtype, teacher.revision, teacher.sha256)
            source = targets.source(teacher, tokenizer, rows, str(dtype).removeprefix("torch."), weight.targets.top_k)
            examples = [encode(tokenizer, row) for row in rows]
            targets.write(
                folder, source, teacher_rows(model, examples, weight.targets.top_k, weight.targets.batch_tokens)
            )
    metrics = summary(rows, weight.scheme, strength)
    write_rows(WEIGHTED, rows)
    write_json(METRICS, metrics)
    environment.record("weight", params.runtime)
    print(f"{len(rows)} rows weighted, effective sample size {metrics['effective_share']:.0%} of them")


if __name__ == "__main__":
    run(main)
