"""Log-probabilities and losses from logits, chunk by chunk, without a float32 copy of the vocabulary."""

from collections.abc import Callable
from typing import Any

import torch

CACHE_BYTES = 2**21  # of an fp32 [tokens, vocab] at one time on a processor: about what its core's cache holds
DEVICE_BYTES = 2**27  # the same on a GPU


def label_log_probs(logits: torch.Tensor, labels: torch.Tensor, chunk: int | None = None) -> torch.Tensor:
    """The log-probability of each label, [tokens] fp32 nats, from [tokens, vocab] logits."""
    no_ids = labels.new_zeros(len(labels), 0)
    return TopKLogProbs.apply(logits, no_ids, labels, chunk or fast_chunk(logits))[2]


def fast_chunk(logits: torch.Tensor) -> int:
    """The number of tokens whose fp32 copy fits into the cache, at least 1."""
    space = CACHE_BYTES if logits.device.type == "cpu" else DEVICE_BYTES
    return max(space // (4 * logits.shape[-1]), 1)


class ChunkedLoss(torch.autograd.Function):
    """A sum over tokens of a function of their logits, with its gradient made in the same pass, chunk by chunk.

    (logits [tokens, vocab], loss(fp32 logits of a span, span) -> scalar, chunk) -> scalar. What is kept for the
    backward is the gradient in the type of the logits, as in Liger Kernel (Hsu et al. 2024): no chunk is computed
    twice, and no fp32 [tokens, vocab] of half-precision logits is kept.
    """

    @staticmethod
    def forward(
        ctx: Any, logits: torch.Tensor, loss: Callable[[torch.Tensor, slice], torch.Tensor], chunk: int
    ) -> torch.Tensor:
        gradient = torch.empty_like(logits)
        result = torch.zeros((), device=logits.device)
        for start in range(0, len(logits), chunk):
            span = slice(start, start + chunk)
            chunk_logits = logits[span].detach().float().requires_grad_()
            with torch.enable_grad():
                value = loss(chunk_logits, span)
            gradient[span] = torch.autograd.grad(value, chunk_logits)[0]
            result += value.detach()
        ctx.save_for_backward(gradient)
        return result

    @staticmethod
    def backward(ctx: Any, outer: torch.Tensor) -> tuple[torch.Tensor, None, None]:
        (gradient,) = ctx.saved_tensors
        return gradient * outer, None, None


class TopKLogProbs(torch.autograd.Function):
    """Log-probabilities of chosen tokens, of the rest together, and of the label, from [tokens, vocab] logits.

    (logits, ids [tokens, k], labels [tokens], chunk) -> ([tokens, k], [tokens], [tokens]), fp32. Equal ids in
    a row are one outcome. With q the softmax, K the chosen tokens and Q the mass of the rest, the gradient
    of a log-probability log q_i is 1[v = i] - q_v, and that of log Q is 1[v not in K] q_v / Q - q_v; so
    the backward needs the logits alone, and no fp32 [tokens, vocab] is kept.
    """

    @staticmethod
    def forward(
        ctx: Any, logits: torch.Tensor, ids: torch.Tensor, labels: torch.Tensor, chunk: int
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        outcomes = torch.cat([ids, labels[:, None]], dim=1)
        highest, total, rest, chosen = [], [], [], []
        for start in range(0, len(logits), chunk):
            values = logits[start : start + chunk].float()
            best = values.amax(-1, keepdim=True)
            chosen.append(values.gather(1, outcomes[start : start + chunk]) - best)
            is_copy = values.data_ptr() != logits[start:].data_ptr()
            mass = values.sub_(best).exp_() if is_copy else (values - best).exp_()
            total.append(mass.sum(-1, keepdim=True))
            rest.append(mass.scatter_(1, ids[start : start + chunk], 0.0).sum(-1, keepdim=True))
            highest.append(best)
        sums, rests = torch.cat(total), torch.cat(rest).clamp(min=1e-30)
        log_probs = torch.cat(chosen) - sums.log()
        ctx.save_for_backward(logits, ids, labels, torch.cat(highest) + sums.log(), rests / sums)
        ctx.chunk = chunk
        return log_probs[:, :-1], (rests / sums).log()[:, 0], log_probs[:, -1]

    @staticmethod
    def backward(
        ctx: Any, grad_ids: torch.Tensor, grad_rest: torch.Tensor, grad_label: torch.Tensor
    ) -> tuple[torch.Tensor, None, None, None]:
        logits, ids, labels, normaliser, rests = ctx.saved_tensors
        result = torch.empty_like(logits)
        grad_sum = grad_ids.sum(-1) + grad_rest + grad_label
        for start in range(0, len(logits), ctx.chunk):
            span = slice(start, start + ctx.chunk)
            probs = (logits[span].float() - normaliser[span]).exp_()
            chosen = probs.gather(1, ids[span])
            grad = probs.mul_((grad_rest[span, None] / rests[span]) - grad_sum[span, None])
            # the chosen tokens are no part of the rest
            grad.scatter_(1, ids[span], -grad_sum[span, None] * chosen)
            grad.scatter_add_(1, ids[span], grad_ids[span])
            grad.scatter_add_(1, labels[span, None], grad_label[span, None])
            result[span] = grad.to(logits.dtype)
        return result, None, None, None
