"""The scores of our lm-eval tasks for one item, and how they add up; the YAML files name these functions."""

import math
from typing import Any

from distill.core.text import rouge_l

Fraction = tuple[float, float]


def text(doc: dict[str, Any], results: list[Any]) -> dict[str, Fraction]:
    """Nats, and teacher tokens ranked first, each over the number of the teacher's tokens.

    `doc["teacher_tokens"]` and the result's `ranked_first` name tokens by their place in the text: a token of
    the teacher agrees only where the model has that very token at that place and ranks it first.
    """
    scored = results[0]
    tokens = [tuple(token) for token in doc["teacher_tokens"]]
    agreed = sum(token in scored.ranked_first for token in tokens)
    return {"nll": (-scored[0], len(tokens)), "top1_tokens": (agreed, len(tokens))}


def generation(doc: dict[str, Any], results: list[Any]) -> dict[str, float]:
    """ROUGE-L F1 (Lin 2004) of the generated text against the teacher's, and whether the model ended it by itself."""
    text = results[0]
    return {"rouge_l": rouge_l(doc["response"], text), "ended": float(text.ended)}


def ratio(items: list[Fraction]) -> float:
    """Sum of the numerators over the sum of the denominators."""
    return sum(top for top, _ in items) / sum(bottom for _, bottom in items)


def perplexity(items: list[Fraction]) -> float:
    """exp of the nats for each of the teacher's tokens."""
    return math.exp(ratio(items))
