"""Scores of our lm-eval tasks for one item, and their aggregation; the YAML files name these functions."""

from distill.core import numbers
from distill.core.files import Row
from distill.core.text import rouge_l
from distill.evaluation.lm_eval_model import GeneratedText, ScoredContinuation

Fraction = tuple[float, float]


def choice(doc: Row, results: list[ScoredContinuation]) -> dict[str, float]:
    """Whether the teacher's response is the most likely choice, and whether it is per character of the response.

    As lm-eval's `acc` and `acc_norm`, but the end of turn, whose marker has another length for each model, is no text.
    """
    likelihoods = [scored[0] for scored in results]
    by_length = [nats / max(1, len(text)) for nats, text in zip(likelihoods, doc["choice_responses"], strict=True)]
    return {
        name: float(values.index(max(values)) == doc["answer"])
        for name, values in (("acc", likelihoods), ("acc_norm", by_length))
    }


def text(doc: Row, results: list[ScoredContinuation]) -> dict[str, Fraction]:
    """Nats, and the teacher's tokens that are top-1, each over the number of the teacher's tokens.

    `doc["teacher_tokens"]` and the result's `top1_positions` name tokens by their position in the text: a token of the
    teacher counts only where the model has the same token at the same position and ranks it first.
    """
    [scored] = results
    tokens = [tuple(token) for token in doc["teacher_tokens"]]
    top1_tokens = sum(token in scored.top1_positions for token in tokens)
    return {"nll": (-scored[0], len(tokens)), "top1_tokens": (top1_tokens, len(tokens))}


def generation(doc: Row, results: list[GeneratedText]) -> dict[str, float]:
    """ROUGE-L F1 (Lin 2004) of the generated text against the teacher's response, and whether the model ended it."""
    [generated] = results
    return {"rouge_l": rouge_l(doc["response"], generated), "ended": float(generated.ended)}


def ratio(items: list[Fraction]) -> float:
    """Sum of the numerators over the sum of the denominators."""
    return sum(top for top, _ in items) / sum(bottom for _, bottom in items)


def perplexity(items: list[Fraction]) -> float:
    """exp of the nats for each of the teacher's tokens."""
    return numbers.perplexity(ratio(items))
