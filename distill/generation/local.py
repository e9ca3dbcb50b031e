"""Completions of a transformers model in this process: batched decoding that keeps the log-probabilities."""

from collections.abc import Iterator
from dataclasses import dataclass

from transformers import PreTrainedModel, PreTrainedTokenizerFast

from distill.generation.completions import Completion, Request
from distill.modeling.chat import chat_format, prompt_ids
from distill.modeling.decoding import decode
from distill.modeling.sampling import Sampling

DIGITS = 4  # of a stored log-probability


@dataclass(frozen=True)
class _Decoded:
    """The token ids of a prompt and its response, with the log-probability of each response token."""

    prompt: list[int]
    response: list[int]
    log_probs: list[float]


def split_batches(tokenizer: PreTrainedTokenizerFast, requests: list[Request], batch_size: int) -> list[list[Request]]:
    """The requests in batches of similar prompt length.

    Batches depend on all requests, not on which have a completion already. So a resumed run has the same batches,
    and the same rounding, as a run without interruption.
    """
    lengths = {request.id: len(prompt_ids(tokenizer, request.messages)) for request in requests}
    order = sorted(requests, key=lambda request: (lengths[request.id], request.id))
    return [order[start : start + batch_size] for start in range(0, len(order), batch_size)]


def complete(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, batches: list[list[Request]], sampling: Sampling
) -> Iterator[list[Completion]]:
    """Yields the completions of each batch, in the order of its requests."""
    for batch in batches:
        prompts = [prompt_ids(tokenizer, request.messages) for request in batch]
        seeds = [request.seed for request in batch]
        responses = decode(model, prompts, seeds, chat_format(tokenizer).stop_id(tokenizer), sampling)
        yield [
            _completion(tokenizer, request, _Decoded(prompt, tokens, log_probs))
            for request, prompt, (tokens, log_probs) in zip(batch, prompts, responses, strict=True)
        ]


def _completion(tokenizer: PreTrainedTokenizerFast, request: Request, decoded: _Decoded) -> Completion:
    tokens, log_probs = decoded.response, decoded.log_probs
    finished = chat_format(tokenizer).finish(tokenizer, tokens)
    count, text = finished or (len(tokens), str(tokenizer.decode(tokens, skip_special_tokens=False)))
    return Completion(
        id=request.id,
        response=text,
        finish_reason="stop" if finished else "length",
        logprobs=[round(value, DIGITS) for value in log_probs[:count]],
        usage={"prompt_tokens": len(decoded.prompt), "completion_tokens": len(tokens)},
        error=None,
    )
