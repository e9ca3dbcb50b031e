"""Random cases of a loss: logits, teacher, labels and weights, and the teacher as targets."""

import math

import torch

from distill.losses.logit_loss import CROSS_ENTROPY, LossSettings
from distill.targets.distributions import Full, TopK

TEMPERATURES = (0.5, 1.0, 2.0)


def settings(kind: str = "forward_kl", **changes: object) -> LossSettings:
    """A loss without cross-entropy unless `changes` say otherwise, or cross-entropy alone."""
    if kind == "cross_entropy":
        return CROSS_ENTROPY
    return LossSettings(**({"kind": kind, "ce_weight": 0.0, "beta": 0.3, "tail": "bucket"} | changes))


def top_k_targets(log_probs: torch.Tensor, k: int, known: bool = True) -> TopK:
    """The k best of full distributions [tokens, vocab]."""
    best, ids = log_probs.topk(k, -1)
    rest = log_probs.scatter(-1, ids, -math.inf).logsumexp(-1)
    return TopK(ids, best, rest, torch.full((len(ids),), known))


def full_targets(log_probs: torch.Tensor, known: bool = True) -> Full:
    """All of distributions [tokens, vocab]."""
    return Full(lambda span: log_probs[span], torch.full((len(log_probs),), known))


def loss_case(
    tokens: int = 23, vocabulary: int = 17, seed: int = 0, dtype: torch.dtype = torch.float32
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """The student's logits and the teacher's log-probabilities [tokens, vocab], labels and weights [tokens]."""
    generator = torch.Generator().manual_seed(seed)
    logits = (2 * torch.randn(tokens, vocabulary, generator=generator, dtype=dtype)).requires_grad_()
    teacher = (2 * torch.randn(tokens, vocabulary, generator=generator, dtype=dtype)).log_softmax(-1)
    labels = torch.randint(0, vocabulary, (tokens,), generator=generator)
    weights = torch.rand(tokens, generator=generator, dtype=dtype) + 0.1
    return logits, teacher, labels, weights
