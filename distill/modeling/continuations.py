"""Scores of several continuations of one prompt: the prompt goes through the model once for all of them."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

import torch
from transformers import DynamicCache

from distill.modeling.decoding import common_prefix, prefix_cache
from distill.modeling.forward import logits_at
from distill.modeling.scoring import Score, token_scores


@dataclass(frozen=True)
class Question:
    """A prompt and the texts that may follow it, as token ids."""

    prompt: list[int]
    continuations: list[list[int]]


def batches(questions: Sequence[Question], batch_tokens: int) -> list[list[int]]:
    """Indices of the questions in batches of like length of their continuations, then of their prompts, long first.

    A prompt is padded once and a continuation in each of its rows, so that those count first. A batch has at most
    `batch_tokens` padded tokens, one row for each continuation; at least one question.
    """
    reach = [max(map(len, question.continuations)) for question in questions]
    order = sorted(range(len(questions)), key=lambda index: (-reach[index], -len(questions[index].prompt)))
    result: list[list[int]] = []
    rows = longest = 0
    for index in order:
        added = len(questions[index].continuations)
        prompt = max(longest, len(questions[index].prompt))
        if result and (rows + added) * (prompt + reach[result[-1][0]]) <= batch_tokens:
            result[-1].append(index)
            rows, longest = rows + added, prompt
        else:
            result.append([index])
            rows, longest = added, len(questions[index].prompt)
    return result


def scores(model: Any, questions: Sequence[Question], batch_tokens: int) -> Iterator[tuple[int, list[Score]]]:
    """Yields (index of the question, a score for each of its continuations)."""
    for batch in batches(questions, batch_tokens):
        yield from zip(batch, batch_scores(model, [questions[index] for index in batch]), strict=True)


@torch.inference_mode()
def batch_scores(model: Any, questions: Sequence[Question]) -> list[list[Score]]:
    """For each question a score for each of its continuations, all in one batch."""
    logits = continuation_logits(model, questions)
    continuations = [tokens for question in questions for tokens in question.continuations]
    tokens = torch.tensor([token for ids in continuations for token in ids], device=logits.device)
    each = token_scores(logits, tokens).split([len(ids) for ids in continuations])
    result = iter([Score.from_rows(rows) for rows in each])
    return [list(islice(result, len(question.continuations))) for question in questions]


def continuation_logits(model: Any, questions: Sequence[Question]) -> torch.Tensor:
    """The logits that predict the tokens of all continuations in order, [tokens, vocab], as one batch.

    Gradients add up where a prompt, or what all prompts begin with, is computed once for several continuations.
    """
    rows = [row for row, question in enumerate(questions) for _ in question.continuations]
    continuations = [ids for question in questions for ids in question.continuations]
    cache, mask = _prompts_cache(model, [question.prompt for question in questions])
    owner = torch.tensor(rows, device=model.device)
    if cache.get_seq_length():
        cache.batch_select_indices(owner)
    width = max(map(len, continuations))
    ids = torch.zeros(len(rows), width, dtype=torch.long)
    own = torch.zeros(len(rows), width, dtype=torch.long)
    for place, (row, tokens) in enumerate(zip(rows, continuations, strict=True)):
        ids[place, : len(tokens)] = torch.tensor([questions[row].prompt[-1], *tokens][:-1])
        own[place, : len(tokens)] = 1
    ids, own = ids.to(model.device), own.to(model.device)
    before = mask.sum(1)[owner]
    with logits_at(model, own.bool()):
        return model(
            input_ids=ids,
            attention_mask=torch.cat([mask[owner], own], dim=1),
            position_ids=before[:, None] + torch.arange(width, device=model.device),
            past_key_values=cache,
            use_cache=True,
        ).logits


def _prompts_cache(model: Any, prompts: list[list[int]]) -> tuple[DynamicCache, torch.Tensor]:
    """Keys and values of all prompts but their last tokens, and the mask of those, [prompts, longest - 1].

    Padded on the left, so that what follows comes right after each prompt; what all begin with is computed once.
    """
    shared = common_prefix(prompts)
    lengths = torch.tensor([len(prompt) - 1 for prompt in prompts], device=model.device)
    longest = int(lengths.max())
    mask = (torch.arange(longest - shared, device=model.device) >= (longest - lengths)[:, None]).long()
    mask = torch.cat([mask.new_ones(len(prompts), shared), mask], dim=1)
    cache = DynamicCache(config=model.config)
    if shared:
        cache = prefix_cache(model, torch.tensor([prompts[0][:shared]], device=model.device), len(prompts))
    if longest > shared:
        ids = torch.zeros(len(prompts), longest - shared, dtype=torch.long)
        for row, prompt in enumerate(prompts):
            ids[row, longest + 1 - len(prompt) :] = torch.tensor(prompt[shared:-1], dtype=torch.long)
        position = (mask.cumsum(1) - 1).clamp(min=0)[:, shared:]
        model.get_decoder()(
            input_ids=ids.to(model.device),
            attention_mask=mask,
            position_ids=position,
            past_key_values=cache,
            use_cache=True,
        )
    return cache, mask
