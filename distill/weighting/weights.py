"""Sample weights with mean 1, made of the teacher's confidence."""

import math
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from scipy.stats import spearmanr

from distill.core.files import Row
from distill.core.text import words
from distill.params.weight import ConfidenceWeights, Weight
from distill.targets.statistics import ResponseStatistics
from distill.weighting.confidence import ConfidenceInputs, measure_confidence

BISECTIONS = 40  # halvings of the interval for the strength: 1e-12 of it


def length_buckets(lengths: Sequence[int], count: int) -> np.ndarray:
    """The length bucket of each sample, [samples]: `count` buckets of equal size by rank, equal lengths together."""
    values = np.asarray(lengths)
    edges = np.quantile(values, np.linspace(0, 1, count + 1)[1:-1]) if len(values) else []
    return np.searchsorted(edges, values, side="left")


def standardize(confidence: Sequence[float | None], groups: Sequence[tuple[str, int]]) -> np.ndarray:
    """Confidence less its group's mean, in its group's standard deviations, [samples].

    A group is (teacher, length bucket): a mean log-probability favours long responses and differs between teachers.
    Unknown confidence, and a group without spread, give 0: a neutral sample.
    """
    values = np.array([math.nan if value is None else value for value in confidence], dtype=float)
    result = np.zeros(len(values))
    for group in sorted(set(groups)):
        members = np.array([index for index, other in enumerate(groups) if other == group])
        known = members[~np.isnan(values[members])]
        spread = values[known].std() if len(known) > 1 else 0.0
        if spread > 0:
            result[known] = (values[known] - values[known].mean()) / spread
    return result


def ess_fraction(weights: np.ndarray) -> float:
    """Kish's effective sample size as a fraction of the samples: (sum w)^2 / (n sum w^2), in (0, 1]."""
    return float(weights.sum() ** 2 / (len(weights) * (weights**2).sum()))


def exponential_weights(scores: np.ndarray, strength: float, max_weight: float) -> np.ndarray:
    """exp(strength x score) clipped to [1 / max_weight, max_weight], scaled to mean 1."""
    raw = np.clip(np.exp(np.clip(strength * scores, -50, 50)), 1 / max_weight, max_weight)
    return raw / raw.mean()


def limited_weights(scores: np.ndarray, section: ConfidenceWeights) -> tuple[np.ndarray, float]:
    """The weights, [samples], and the strength used: the largest one that keeps the effective sample size."""

    def weights(strength: float) -> np.ndarray:
        return exponential_weights(scores, strength, section.max_weight)

    if ess_fraction(weights(section.strength)) >= section.min_ess_fraction:
        return weights(section.strength), section.strength
    low, high = 0.0, section.strength
    for _ in range(BISECTIONS):
        middle = (low + high) / 2
        if ess_fraction(weights(middle)) >= section.min_ess_fraction:
            low = middle
        else:
            high = middle
    return weights(low), low


def confidence_inputs(
    rows: Sequence[Row], dropped: Iterable[Row], statistics: Mapping[str, ResponseStatistics], teacher: str | None
) -> list[ConfidenceInputs]:
    """What is known of each row.

    Its teacher's other responses to the prompt count even if `clean` dropped them. `statistics` by row id come from
    the pass of `teacher`: its entropies and margins say nothing of another teacher's rows.
    """
    responses: dict[tuple[str, str], dict[str, str]] = {}
    for row in rows:
        responses.setdefault((row["prompt_id"], row["teacher"]), {})[row["id"]] = row["response"]
    for row in dropped:
        if (row["prompt_id"], row["teacher"]) in responses and row["response"].strip():
            responses[row["prompt_id"], row["teacher"]][row["id"]] = row["response"]
    result = []
    for row in rows:
        others = responses[row["prompt_id"], row["teacher"]]
        passed = statistics.get(row["id"])
        same_teacher = passed if row["teacher"] == teacher else None
        result.append(
            ConfidenceInputs(
                response=row["response"],
                log_probs=row["logprobs"],
                entropies=same_teacher.entropies if same_teacher else row.get("entropies"),
                margins=same_teacher.margins if same_teacher else row.get("margins"),
                others=[text for name, text in others.items() if name != row["id"]],
                judge_score=row.get("judge_score"),
                with_prompt=passed.with_prompt if passed else None,
                without_prompt=passed.without_prompt if passed else None,
            )
        )
    return result


def assign_weights(
    rows: Sequence[Row], inputs: Sequence[ConfidenceInputs], section: Weight, seed: int
) -> tuple[list[Row], float]:
    """The rows with `confidence` and `weight` (mean 1), and the strength that was used.

    A row of unknown confidence counts neutrally and says so in `degraded`. Uniform weights measure no confidence.
    """
    if section.kind == "uniform":
        return [{**row, "confidence": None, "weight": 1.0} for row in rows], 0.0
    confidence = [measure_confidence(section.confidence, known) for known in inputs]
    lengths = [len(row["logprobs"] or words(row["response"])) for row in rows]
    buckets = length_buckets(lengths, section.num_length_buckets).tolist()
    groups = list(zip([row["teacher"] for row in rows], buckets, strict=True))
    weights, strength = limited_weights(standardize(confidence, groups), section)
    if section.kind == "shuffled":
        weights = np.random.default_rng(seed).permutation(weights)
    weighted = []
    for row, value, weight in zip(rows, confidence, weights, strict=True):
        fields: Row = {"confidence": None if value is None else round(value, 4), "weight": round(float(weight), 6)}
        if value is None:
            fields["degraded"] = [*row.get("degraded", []), f"no_{section.confidence.measure}"]
        weighted.append({**row, **fields})
    return weighted, strength


def summarize(rows: Sequence[Row], section: Weight, strength: float) -> Row:
    """The spread of the weights, and their rank correlation with length (Spearman; None where a side is constant)."""
    weights = np.array([row["weight"] for row in rows])
    lengths = np.array([len(words(row["response"])) for row in rows])
    constant = weights.std() == 0 or lengths.std() == 0
    return {
        "kind": section.kind,
        "confidence": None if section.kind == "uniform" else section.confidence.measure,
        "rows": len(rows),
        "without_confidence": sum(row["confidence"] is None for row in rows),
        "strength": round(strength, 4),
        "ess_fraction": round(ess_fraction(weights), 4),
        "mean": round(float(weights.mean()), 4),
        "min": round(float(weights.min()), 4),
        "max": round(float(weights.max()), 4),
        "correlation_with_length": None if constant else round(float(spearmanr(weights, lengths).statistic), 4),
    }
