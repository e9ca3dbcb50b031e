"""A transformers model in this process as a teacher: batched decoding that keeps the log-probabilities."""

from collections.abc import Iterator
from typing import Any

from distill.generation.completions import Answer, Request
from distill.modeling import few_shot
from distill.modeling.chat import end_of_turn, prompt_ids
from distill.modeling.decoding import decode
from distill.modeling.sampling import Sampling


def batches(tokenizer: Any, requests: list[Request], batch_size: int) -> list[list[Request]]:
    """The requests in batches of like prompt length.

    They depend on all requests and not on which are answered already: a resumed run meets the same
    batches, and so the same rounding, as one that was never interrupted.
    """
    lengths = {request.id: len(prompt_ids(tokenizer, request.messages)) for request in requests}
    order = sorted(requests, key=lambda request: (lengths[request.id], request.id))
    return [order[start : start + batch_size] for start in range(0, len(order), batch_size)]


def answer(model: Any, tokenizer: Any, batches: list[list[Request]], sampling: Sampling) -> Iterator[list[Answer]]:
    """Yields the answers of one batch after the other, in the order of its requests."""
    for batch in batches:
        prompts = [prompt_ids(tokenizer, request.messages) for request in batch]
        seeds = [request.seed for request in batch]
        end = end_token(tokenizer)
        responses = decode(model, prompts, seeds, end, sampling)
        yield [
            _answer(tokenizer, request, len(prompt), tokens, log_probs, end)
            for request, prompt, (tokens, log_probs) in zip(batch, prompts, responses, strict=True)
        ]


def end_token(tokenizer: Any) -> int:
    """The token at which a response ends: of the turn, or of the answer in a base model's list."""
    stop = few_shot.stop_token(tokenizer) if few_shot.is_used(tokenizer) else None
    return end_of_turn(tokenizer) if stop is None else stop


def _answer(
    tokenizer: Any, request: Request, prompt_tokens: int, tokens: list[int], log_probs: list[float], end: int
) -> Answer:
    ended = tokens[-1] == end
    text = tokenizer.decode(tokens[:-1] if ended else tokens, skip_special_tokens=False)
    if few_shot.is_used(tokenizer) and (over := few_shot.cut(tokenizer, tokens)):
        ended, (count, text) = True, over
        log_probs = log_probs[:count]
    return Answer(
        id=request.id,
        response=text,
        finish_reason="stop" if ended else "length",
        logprobs=[round(value, 4) for value in log_probs],
        usage={"prompt_tokens": prompt_tokens, "completion_tokens": len(tokens)},
        error=None,
    )
