"""Score several continuations of one prompt, which goes through the model once for all of them."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

import torch
from transformers import DynamicCache, PreTrainedModel

from distill.modeling.decoding import common_prefix, prefix_cache
from distill.modeling.forward import logits_at
from distill.modeling.scoring import Score, token_scores


@dataclass(frozen=True)
class Candidates:
    """A prompt and its candidate continuations, as token ids."""

    prompt: list[int]
    continuations: list[list[int]]


def candidate_batches(candidates: Sequence[Candidates], batch_tokens: int) -> list[list[int]]:
    """Indices of the items in batches of similar length of their continuations, then of their prompts, longest first.

    A prompt is padded once and a continuation in each of its rows, so continuations count first. A batch has at most
    `batch_tokens` padded tokens, one row for each continuation, and at least one item.
    """
    reach = [max(map(len, candidate.continuations)) for candidate in candidates]
    order = sorted(range(len(candidates)), key=lambda index: (-reach[index], -len(candidates[index].prompt)))
    result: list[list[int]] = []
    rows = longest = 0
    for index in order:
        added = len(candidates[index].continuations)
        prompt = max(longest, len(candidates[index].prompt))
        if result and (rows + added) * (prompt + reach[result[-1][0]]) <= batch_tokens:
            result[-1].append(index)
            rows, longest = rows + added, prompt
        else:
            result.append([index])
            rows, longest = added, len(candidates[index].prompt)
    return result


def score_candidates(
    model: PreTrainedModel, candidates: Sequence[Candidates], batch_tokens: int
) -> Iterator[tuple[int, list[Score]]]:
    """Yields (index of the item, a score for each of its continuations)."""
    for batch in candidate_batches(candidates, batch_tokens):
        yield from zip(batch, score_batch(model, [candidates[index] for index in batch]), strict=True)


@torch.inference_mode()
def score_batch(model: PreTrainedModel, candidates: Sequence[Candidates]) -> list[list[Score]]:
    """A score for each continuation of each item, from one batch."""
    logits = continuation_logits(model, candidates)
    continuations = [tokens for candidate in candidates for tokens in candidate.continuations]
    tokens = torch.tensor([token for ids in continuations for token in ids], device=logits.device)
    each = token_scores(logits, tokens).split([len(ids) for ids in continuations])
    result = iter([Score.from_rows(rows) for rows in each])
    return [list(islice(result, len(candidate.continuations))) for candidate in candidates]


def continuation_logits(model: PreTrainedModel, candidates: Sequence[Candidates]) -> torch.Tensor:
    """The logits that predict the tokens of all continuations in order, [tokens, vocab], as one batch.

    Gradients add up in a prompt, and in a prefix of all prompts, which are computed once for several continuations.
    """
    rows = [row for row, candidate in enumerate(candidates) for _ in candidate.continuations]
    continuations = [ids for candidate in candidates for ids in candidate.continuations]
    cache, mask = _prompts_cache(model, [candidate.prompt for candidate in candidates])
    prompt_rows = torch.tensor(rows, device=model.device)
    if cache.get_seq_length():
        cache.batch_select_indices(prompt_rows)
    width = max(map(len, continuations))
    ids = torch.zeros(len(rows), width, dtype=torch.long)
    continuation_mask = torch.zeros(len(rows), width, dtype=torch.long)
    for index, (row, tokens) in enumerate(zip(rows, continuations, strict=True)):
        ids[index, : len(tokens)] = torch.tensor([candidates[row].prompt[-1], *tokens][:-1])
        continuation_mask[index, : len(tokens)] = 1
    ids, continuation_mask = ids.to(model.device), continuation_mask.to(model.device)
    before = mask.sum(1)[prompt_rows]
    with logits_at(model, continuation_mask.bool()):
        return model(
            input_ids=ids,
            attention_mask=torch.cat([mask[prompt_rows], continuation_mask], dim=1),
            position_ids=before[:, None] + torch.arange(width, device=model.device),
            past_key_values=cache,
            use_cache=True,
        ).logits


def _prompts_cache(model: PreTrainedModel, prompts: list[list[int]]) -> tuple[DynamicCache, torch.Tensor]:
    """Keys and values of all prompts without their last tokens, and their mask, [prompts, longest - 1].

    Padded on the left, so that a continuation comes right after its prompt. A common prefix is computed once.
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
