"""Weights every training sample and stores the teacher's probabilities: `python -m stages.weight`.

Reads  data/clean/{train,dropped}.jsonl, metrics/clean.json, params seed, runtime, teachers, weight
Writes data/weighted/train.jsonl, data/weighted/targets, data/README.md, metrics/weight.json;
       metrics/environment/weight.json
"""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.stats import spearmanr
from tqdm import tqdm

from distill.cards import data_card
from distill.core.errors import UserError, run_main
from distill.core.files import atomic_folder, read_json, read_rows, write_json, write_rows, write_text
from distill.modeling import environment, loading, runtime
from distill.modeling.batches import pad_batch
from distill.modeling.chat import Example, encode
from distill.modeling.forward import per_example, response_logits, response_states
from distill.modeling.sampling import request_seed
from distill.modeling.scoring import scores
from distill.params import loading as params_file
from distill.params.schema import Params
from distill.params.weight import Targets, Weight
from distill.targets import store
from distill.targets.teacher_pass import layer_states
from distill.weighting import weights as confidence
from distill.weighting.confidence import MEASURES, Evidence

TRAIN = Path("data/clean/train.jsonl")
DROPPED = Path("data/clean/dropped.jsonl")
CLEANING = Path("metrics/clean.json")
WEIGHTED = Path("data/weighted/train.jsonl")
TARGETS = Path("data/weighted/targets")
CARD = Path("data/README.md")
METRICS = Path("metrics/weight.json")

Row = dict[str, Any]
Seen = dict[str, Any]  # fields of Evidence that the pass for the targets shows
SHOWN = ("entropy", "margin", "ifd")  # measures that need one of these


def evidence(rows: list[Row], dropped: Iterable[Row], seen: dict[str, Seen]) -> list[Evidence]:
    """What is known of each row, and `seen` of it by id.

    The teacher's other answers to its prompt count where `clean` dropped them too.
    """
    answers: dict[tuple[str, str], dict[str, str]] = {}
    for row in rows:
        answers.setdefault((row["prompt_id"], row["teacher"]), {})[row["id"]] = row["response"]
    for row in dropped:
        if (row["prompt_id"], row["teacher"]) in answers and row["response"].strip():
            answers[row["prompt_id"], row["teacher"]][row["id"]] = row["response"]
    result = []
    for row in rows:
        others = answers[row["prompt_id"], row["teacher"]]
        result.append(
            Evidence(
                response=row["response"],
                log_probs=row["logprobs"],
                others=[text for key, text in others.items() if key != row["id"]],
                judge_score=row.get("judge_score"),
                **({key: row.get(key) for key in ("entropies", "margins")} | seen.get(row["id"], {})),
            )
        )
    return result


def weigh(rows: list[Row], known: list[float | None], weight: Weight, seed: int) -> tuple[list[Row], float]:
    """The rows with `confidence` and `weight` (mean 1), and the strength that was used.

    A row of unknown confidence counts neutrally and says so in `degraded`.
    """
    lengths = [len(row["logprobs"] or row["response"].split()) for row in rows]
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
        standard = confidence.standardise(known, groups)
        weights, strength = confidence.weights(standard, weight.strength, weight.clip, weight.min_effective_share)
    if weight.scheme == "shuffled":
        weights = np.random.default_rng(seed).permutation(weights)
    weighted = []
    for row, value, number in zip(rows, known, weights, strict=True):
        own: Row = {"confidence": None if value is None else round(value, 4), "weight": round(float(number), 6)}
        if value is None and weight.scheme != "uniform":
            own["degraded"] = [*row.get("degraded", []), f"no_{weight.confidence}"]
        weighted.append({**row, **own})
    return weighted, strength


def summary(rows: list[Row], weight: Weight, strength: float) -> dict[str, Any]:
    """How the weights are spread, and how they go with length (Spearman; null where a side is constant)."""
    weights = np.array([row["weight"] for row in rows])
    lengths = np.array([len(row["response"].split()) for row in rows])
    constant = weights.std() == 0 or lengths.std() == 0
    return {
        "scheme": weight.scheme,
        "confidence": weight.confidence,
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
    model: Any,
    examples: list[Example],
    wanted: Targets,
    size: int,
    seed: int,
    seen: dict[str, Seen] | None,
    expected: torch.Tensor | None = None,
) -> Iterator[tuple[str, store.Rows | store.Draws | store.States]]:
    """Yields (sample id, what is stored of the teacher's distributions for it) from one teacher-forced pass.

    `size` is how many tokens the tokenizer has: a model may have more logits, which are padding.
    `seen`, where it is given, gets what the pass shows of each response by sample id, and `expected` [vocab] gets the
    sum of all distributions.
    """
    with tqdm(total=sum(len(example.response) for example in examples), desc="targets", unit="token") as bar:
        forward = response_states if wanted.kind == "hidden" else response_logits
        for index, part in per_example(model, examples, wanted.batch_tokens, forward):
            example = examples[index]
            if seen is not None or expected is not None:
                logits = (model.get_output_embeddings()(part) if wanted.kind == "hidden" else part)[:, :size]
            if seen is not None:
                seen[example.id] = shown(logits, example.response)
            if expected is not None:
                expected += logits.float().softmax(-1).sum(0).cpu()
            if wanted.kind == "stored":
                yield example.id, store.top_k(part[:, :size], wanted.top_k)
            elif wanted.kind == "sampled":
                yield example.id, store.draw(part[:, :size], wanted.draws, request_seed(seed, example.id))
            elif wanted.kind == "hidden":
                yield example.id, store.States(part.bfloat16().cpu())
            bar.update(len(example.response))


def shown(logits: torch.Tensor, response: list[int]) -> Seen:
    """What logits [tokens, vocab] say of the response that they predict, in nats."""
    log_probs = logits.float().log_softmax(-1)
    best = log_probs.topk(2, dim=-1).values
    own = log_probs.gather(1, torch.tensor(response, device=logits.device)[:, None])
    return {
        "entropies": torch.special.entr(log_probs.exp()).sum(-1).tolist(),
        "margins": (best[:, 0] - best[:, 1]).tolist(),
        "with_prompt": float(own.mean()),
    }


@torch.inference_mode()
def ends_in_a_product(model: Any, example: Example) -> bool:
    """Whether the model's logits are its output matrix times what enters it, and nothing more."""
    batch = pad_batch([(example.prompt, example.response)])
    logits = model.get_output_embeddings()(response_states(model, batch))
    return torch.allclose(logits, response_logits(model, batch), rtol=1e-3, atol=1e-3)


def without_prompt(model: Any, tokenizer: Any, examples: list[Example], batch_tokens: int) -> dict[str, float]:
    """The mean log-probability of each response's tokens by sample id, from a pass without the prompts.

    What stands before the first token is the one that begins a text, or ends one where the model has no such.
    """
    first = tokenizer.eos_token_id if tokenizer.bos_token_id is None else tokenizer.bos_token_id
    alone = [Example(example.id, [first], example.response) for example in examples]
    found = scores(model, alone, batch_tokens)
    return {alone[index].id: sum(score.log_probs) / len(score.log_probs) for index, score in found}


def write_targets(folder: Path, rows: list[Row], params: Params, wanted: Targets) -> dict[str, Seen]:
    """Stores what `wanted` names, and states of layers where params want them.

    Returns what the teacher's pass shows by row id where the confidence needs it. Entropies and margins are the
    targets' teacher's, and so say nothing of another teacher's rows.
    """
    teacher = next(teacher for teacher in params.teachers if teacher.name == wanted.teacher)
    assert teacher.kind == "local", "the schema refuses targets of an API teacher"
    dtype = runtime.compute_dtype(params.runtime.dtype)
    model, tokenizer = loading.load(teacher.model, dtype, teacher.revision, teacher.sha256, teacher.chat_template)
    source = store.source(teacher, tokenizer, rows, str(dtype).removeprefix("torch."), wanted)
    examples = [encode(tokenizer, row) for row in rows]
    if wanted.kind == "hidden" and not ends_in_a_product(model, examples[0]):
        raise UserError(
            f"weight.targets.kind: hidden is not for {teacher.name!r}, which changes its logits after the product "
            "with its output matrix (by a cap, say). Take stored, sampled, online or on_policy."
        )
    measure = params.weight.confidence
    seen: dict[str, Seen] | None = {} if measure in SHOWN else None
    size = len(tokenizer)
    expected = torch.zeros(size) if wanted.kind in store.WHOLE else None
    found = teacher_rows(model, examples, wanted, size, params.seed, seen, expected)
    store.write(folder, source, found, expected)
    layers = params.weight.layers
    if layers is not None:
        (folder / store.LAYERS).mkdir()
        states = layer_states(model, examples, layers, wanted.batch_tokens)
        store.write(folder / store.LAYERS, store.layers_source(source, layers), states)
    if seen is None:
        return {}
    if measure == "ifd":
        alone = without_prompt(model, tokenizer, examples, wanted.batch_tokens)
        return {key: {"with_prompt": value["with_prompt"], "without_prompt": alone[key]} for key, value in seen.items()}
    own = {row["id"] for row in rows if row["teacher"] == teacher.name}
    return {key: {name: value[name] for name in ("entropies", "margins")} for key, value in seen.items() if key in own}


def main() -> None:
    params = params_file.load()
    weight = params.weight
    runtime.prepare(params.runtime.threads, params.seed)
    rows = list(read_rows(TRAIN, "stage clean"))
    if not rows:
        raise UserError(f"{TRAIN} has no rows: metrics/clean.json says why they were dropped.")
    cleaning = read_json(CLEANING, "stage clean")
    with atomic_folder(TARGETS) as folder:
        seen = write_targets(folder, rows, params, weight.targets) if weight.targets else {}
    measure = MEASURES[weight.confidence]
    known = [measure(one, weight.window) for one in evidence(rows, read_rows(DROPPED, "stage clean"), seen)]
    rows, strength = weigh(rows, known, weight, params.seed)
    teachers = {teacher.name: (teacher.model, teacher.license) for teacher in params.teachers}
    metrics = summary(rows, weight, strength) | data_card.numbers(rows, teachers)
    write_rows(WEIGHTED, rows)
    write_text(CARD, data_card.markdown(rows, metrics, cleaning))
    write_json(METRICS, metrics)
    environment.record("weight", params.runtime)
    print(f"{len(rows)} rows weighted, effective sample size {metrics['effective_share']:.0%} of them")


if __name__ == "__main__":
    run_main(main)
