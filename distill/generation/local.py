"""Completions of a transformers model in this process: batched decoding that keeps the log-probabilities."""

from collections.abc import Iterator
from dataclasses import dataclass

from transformers import PreTrainedModel, PreTrainedTokenizerFast

from distill.generation.completions import Completion, Request
from distill.modeling.chat import chat_format, prompt_ids, stop_ids
from distill.modeling.decoding import decode_rows
from distill.modeling.sampling import Sampling

DIGITS = 4  # of a stored log-probability


@dataclass(frozen=True)
class _Decoded:
    """The token ids of a prompt and its response, with the log-probability of each response token."""

    prompt: list[int]
    response: list[int]
    log_probs: list[float]


@dataclass(frozen=True)
class BatchLimits:
    """The most rows of a batch, and the most tokens of their prompts and responses, padded.

    A request takes `rows_per_request` rows, and each of these up to `max_new_tokens` for its response.
    """

    rows: int
    tokens: int
    max_new_tokens: int
    rows_per_request: int = 1


def split_batches(
    tokenizer: PreTrainedTokenizerFast, requests: list[Request], limits: BatchLimits
) -> list[list[Request]]:
    """The requests in batches of similar prompt length, the shortest first. A request beyond the limits is alone.

    Batches depend on all requests, not on which have a completion already. So a resumed run has the same batches,
    and the same rounding, as a run without interruption.
    """
    lengths = {request.id: len(prompt_ids(tokenizer, request.messages)) for request in requests}
    batches: list[list[Request]] = []
    for request in sorted(requests, key=lambda request: (lengths[request.id], request.id)):
        row_tokens = (lengths[request.id] + limits.max_new_tokens) * limits.rows_per_request
        most = min(limits.rows, limits.tokens // row_tokens)
        if batches and len(batches[-1]) < most:
            batches[-1].append(request)
        else:
            batches.append([request])
    return batches


def complete(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, batches: list[list[Request]], sampling: Sampling
) -> Iterator[list[Completion]]:
    """Yields completions as soon as they are finished, batch by batch."""
    for batch in batches:
        prompts = [prompt_ids(tokenizer, request.messages) for request in batch]
        seeds = [request.seed for request in batch]
        ends = stop_ids(tokenizer, model)
        for finished in decode_rows(model, prompts, seeds, ends, sampling):
            yield [
                _completion(tokenizer, batch[row], _Decoded(prompts[row], _with_one_end(tokens, ends), log_probs))
                for row, (tokens, log_probs) in finished
            ]


def _with_one_end(tokens: list[int], ends: list[int]) -> list[int]:
    """The tokens, whichever of the ends is their last, with the first of the ends, which a chat format knows."""
    return [*tokens[:-1], ends[0]] if tokens[-1] in ends else tokens


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
