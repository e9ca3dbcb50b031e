"""Completions of a transformers model in this process: batched decoding that keeps the log-probabilities."""

from collections.abc import Iterator
from dataclasses import dataclass

from transformers import PreTrainedModel, PreTrainedTokenizerFast

from distill.generation.completions import Completion, Request
from distill.modeling import few_shot
from distill.modeling.chat import end_of_turn, prompt_ids
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
        end = end_token(tokenizer)
        responses = decode(model, prompts, seeds, end, sampling)
        yield [
            _completion(tokenizer, request, _Decoded(prompt, tokens, log_probs), end)
            for request, prompt, (tokens, log_probs) in zip(batch, prompts, responses, strict=True)
        ]


def end_token(tokenizer: PreTrainedTokenizerFast) -> int:
    """The token that ends a response: of the turn, or of the answer in a base model's list of examples."""
    stop = few_shot.stop_token(tokenizer) if few_shot.is_used(tokenizer) else None
    return end_of_turn(tokenizer) if stop is None else stop


def _completion(tokenizer: PreTrainedTokenizerFast, request: Request, decoded: _Decoded, end: int) -> Completion:
    tokens, log_probs = decoded.response, decoded.log_probs
    ended = tokens[-1] == end
    text = str(tokenizer.decode(tokens[:-1] if ended else tokens, skip_special_tokens=False))
    if few_shot.is_used(tokenizer) and (shortened := few_shot.cut(tokenizer, tokens)):
        ended, (count, text) = True, shortened
        log_probs = log_probs[:count]
    return Completion(
        id=request.id,
        response=text,
        finish_reason="stop" if ended else "length",
        logprobs=[round(value, DIGITS) for value in log_probs],
        usage={"prompt_tokens": len(decoded.prompt), "completion_tokens": len(tokens)},
        error=None,
    )
