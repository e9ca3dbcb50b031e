"""Batched decoding that keeps the log-probabilities, one generator a row."""

from collections.abc import Iterator, Sequence
from itertools import takewhile

import torch
from transformers import DynamicCache, PreTrainedModel

from distill.core.errors import UserError
from distill.modeling.sampling import Sampling

COMPACT_BELOW = 0.8  # fraction of unfinished rows in the batch at which finished ones leave it
Decoded = tuple[list[int], list[float]]  # new token ids, and their log-probabilities in nats at temperature 1


def decode(
    model: PreTrainedModel, prompts: list[list[int]], seeds: list[int], end: int | Sequence[int], sampling: Sampling
) -> list[Decoded]:
    """The new token ids of each prompt with their log-probabilities. See `decode_rows`."""
    finished = (item for items in decode_rows(model, prompts, seeds, end, sampling) for item in items)
    return [decoded for _, decoded in sorted(finished)]


@torch.inference_mode()
def decode_rows(
    model: PreTrainedModel, prompts: list[list[int]], seeds: list[int], end: int | Sequence[int], sampling: Sampling
) -> Iterator[list[tuple[int, Decoded]]]:
    """Yields (index of the prompt, what was decoded) of the rows that one more token finished. All are one batch.

    Greedy at temperature 0. Otherwise every row draws from a generator of its own seed, so that its text
    does not depend on its neighbours. `end`, one token or several, is kept as the last token of a row that reaches it.
    """
    ends = torch.tensor([end] if isinstance(end, int) else list(end))
    shared = common_prefix(prompts)
    lengths = torch.tensor([len(prompt) for prompt in prompts])
    longest = int(lengths.max())
    ids = torch.full((len(prompts), longest - shared), int(ends[0]))
    for row, prompt in enumerate(prompts):
        ids[row, longest - len(prompt) :] = torch.tensor(prompt[shared:])
    mask = (torch.arange(longest) >= (longest - lengths)[:, None]).long()
    mask = torch.cat([torch.ones(len(prompts), shared, dtype=torch.long), mask[:, : longest - shared]], dim=1)
    device = model.device
    ids, mask = ids.to(device), mask.to(device)
    position = (mask.cumsum(1) - 1).clamp(min=0)[:, shared:]
    generators = [torch.Generator().manual_seed(seed) for seed in seeds]
    results: list[Decoded] = [([], []) for _ in prompts]
    rows = torch.arange(len(prompts))  # of the prompts still in the batch
    done = torch.zeros(len(prompts), dtype=torch.bool)
    prefix = torch.tensor([prompts[0][:shared]], device=device)
    cache = prefix_cache(model, prefix, len(prompts)) if shared else DynamicCache(config=model.config)
    for _ in range(sampling.max_tokens):
        logits = (
            model(input_ids=ids, attention_mask=mask, position_ids=position, past_key_values=cache, logits_to_keep=1)
            .logits[:, -1]
            .float()
        )
        normalizer = logits.logsumexp(-1)
        if not normalizer.isfinite().all():
            raise UserError(
                "A model must have finite logits, got nan or infinity. "
                "Check its weights, or set runtime.dtype to float32."
            )
        chosen = _sample(logits, [generators[row] for row in rows.tolist()], sampling)
        log_probs = logits.gather(1, chosen[:, None])[:, 0] - normalizer
        for row, finished, token, log_prob in zip(
            rows.tolist(), done.tolist(), chosen.tolist(), log_probs.tolist(), strict=True
        ):
            if not finished:
                results[row][0].append(token)
                results[row][1].append(log_prob)
        ended = torch.isin(chosen.cpu(), ends) & ~done
        if ended.any():
            yield [(row, results[row]) for row in rows[ended].tolist()]
        done |= ended
        if done.all():
            return
        if (~done).float().mean() <= COMPACT_BELOW:
            keep = (~done).nonzero()[:, 0]
            cache.batch_select_indices(keep.to(device))
            rows, done = rows[keep], done[keep]
            chosen, mask, position = (value[keep.to(device)] for value in (chosen, mask, position))
        ids = chosen[:, None]
        mask = torch.cat([mask, mask.new_ones(len(mask), 1)], dim=1)
        position = position[:, -1:] + 1
    yield [(row, results[row]) for row in rows[~done].tolist()]


def common_prefix(prompts: list[list[int]]) -> int:
    """The number of tokens that all prompts begin with, at most all but one of the shortest; 0 for a single prompt."""
    if len(prompts) == 1:
        return 0
    columns = zip(*prompts, strict=False)
    same = sum(1 for _ in takewhile(lambda column: len(set(column)) == 1, columns))
    return min(same, min(map(len, prompts)) - 1)


def prefix_cache(model: PreTrainedModel, prefix: torch.Tensor, rows: int) -> DynamicCache:
    """The keys and values of a prefix [1, tokens], repeated for `rows` rows."""
    cache = DynamicCache(config=model.config)
    model.get_decoder()(input_ids=prefix, past_key_values=cache, use_cache=True)
    cache.batch_repeat_interleave(rows)
    return cache


def _sample(logits: torch.Tensor, generators: list[torch.Generator], sampling: Sampling) -> torch.Tensor:
    """The next token of each row, [batch] from [batch, vocab]: greedy, or by temperature and nucleus (top_p)."""
    if sampling.temperature == 0:
        return logits.argmax(-1)
    probs, order = (logits / sampling.temperature).softmax(-1).sort(descending=True)
    before = probs.cumsum(-1) - probs
    probs = probs.masked_fill(before >= sampling.top_p, 0.0)
    draws = torch.stack([torch.rand((), generator=generator) for generator in generators]).to(logits.device)
    cumulative = probs.cumsum(-1)
    index = torch.searchsorted(cumulative, (draws * cumulative[:, -1])[:, None], right=True)
    return order.gather(1, index.clamp(max=(probs > 0).sum(-1, keepdim=True) - 1))[:, 0]
