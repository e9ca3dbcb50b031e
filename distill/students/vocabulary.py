"""Vocabulary trimming: a smaller byte-level BPE tokenizer from the teacher's, and the tokens that it keeps."""

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from tokenizers import Tokenizer
from tokenizers.pre_tokenizers import ByteLevel
from transformers import PreTrainedTokenizerFast

from distill.core.errors import UserError
from distill.core.files import Row
from distill.modeling.chat import encode
from distill.targets.alignment import shared_tokens, token_bytes
from distill.targets.tokenizers import fingerprint, specification


def select_tokens(tokenizer: PreTrainedTokenizerFast, counts: Mapping[int, float], size: int) -> list[int]:
    """The ids of `size` tokens to keep, ascending.

    All added tokens and all bytes that the teacher has; then the tokens by count, and after them the others by
    id, which is the order of frequency in which BPE learnt them. A token brings along what it is merged from,
    so that the trimmed tokenizer can still build it; one that no longer fits with its parts is left out.
    Raises UserError where `size` is too small or the tokenizer is not byte-level BPE.
    """
    spec = specification(tokenizer)
    vocabulary = spec["model"]["vocab"]
    parents = _parents(spec)
    kept = {token["id"] for token in spec["added_tokens"]}
    kept |= {vocabulary[byte] for byte in ByteLevel.alphabet() if byte in vocabulary}
    if size < len(kept):
        raise UserError(f"init.vocab_size: must be at least {len(kept)}, the special tokens and the bytes, got {size}.")
    known = set(vocabulary.values()) | kept
    counted = sorted((token for token in counts if token in known), key=lambda token: (-counts[token], token))
    for token in [*counted, *sorted(known - set(counted))]:
        if len(kept) == size:
            break
        needed = _closure(token, parents) - kept
        if len(kept) + len(needed) <= size:
            kept |= needed
    return sorted(kept)


def trim_tokenizer(tokenizer: PreTrainedTokenizerFast, kept: Sequence[int]) -> PreTrainedTokenizerFast:
    """The tokenizer with the kept tokens only, numbered 0.. in their old order, as a normal fast tokenizer.

    Text whose tokens are all kept is tokenized exactly as before; all other text into smaller tokens, down to bytes.
    """
    spec = specification(tokenizer)
    new = {old: token for token, old in enumerate(kept)}
    model = spec["model"]
    old_vocabulary = model["vocab"]
    model["vocab"] = {token: new[old] for token, old in old_vocabulary.items() if old in new}
    model["merges"] = [
        pair for pair in model["merges"] if all(token in model["vocab"] for token in (*pair, "".join(pair)))
    ]
    for token in spec["added_tokens"]:
        token["id"] = new[token["id"]]
    for special_token in _template_tokens(spec["post_processor"]):
        special_token["ids"] = [new[old] for old in special_token["ids"]]
    special = {key: value for key, value in tokenizer.special_tokens_map.items() if isinstance(value, str)}
    return PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer.from_str(json.dumps(spec, ensure_ascii=False)),
        chat_template=tokenizer.chat_template,
        model_max_length=tokenizer.model_max_length,
        padding_side=tokenizer.padding_side,
        clean_up_tokenization_spaces=False,
        **special,
    )


def coverage(texts: Iterable[Sequence[int]], kept: Iterable[int]) -> float:
    """The fraction of the teacher's tokens in these texts (as ids) that are kept; 1.0 for no text."""
    chosen = set(kept)
    total = inside = 0
    for ids in texts:
        total += len(ids)
        inside += sum(token in chosen for token in ids)
    return inside / total if total else 1.0


def _parents(spec: dict[str, Any]) -> dict[int, tuple[int, int]]:
    """The two tokens that each token is first merged from."""
    vocabulary = spec["model"]["vocab"]
    result: dict[int, tuple[int, int]] = {}
    for left, right in spec["model"]["merges"]:
        if left + right in vocabulary:
            result.setdefault(vocabulary[left + right], (vocabulary[left], vocabulary[right]))
    return result


def _closure(token: int, parents: Mapping[int, tuple[int, int]]) -> set[int]:
    result, todo = set(), [token]
    while todo:
        current = todo.pop()
        if current not in result:
            result.add(current)
            todo += parents.get(current, ())
    return result


def _template_tokens(post_processor: Any) -> list[dict[str, Any]]:
    """The special tokens, with their ids, of a TemplateProcessing wherever it is nested."""
    if not isinstance(post_processor, dict):
        return []
    tokens = (
        list(post_processor.get("special_tokens", {}).values())
        if post_processor["type"] == "TemplateProcessing"
        else []
    )
    for processor in post_processor.get("processors", []):
        tokens += _template_tokens(processor)
    return tokens


def token_map(targets_tokenizer: PreTrainedTokenizerFast, tokenizer: PreTrainedTokenizerFast) -> torch.Tensor | None:
    """Map of a target teacher's token ids to ids of `tokenizer` with the same bytes, -1 if none; None if identical."""
    if fingerprint(targets_tokenizer) == fingerprint(tokenizer):
        return None
    return shared_tokens(token_bytes(targets_tokenizer), token_bytes(tokenizer), first=False)


def token_counts(
    rows: Sequence[Row], tokenizer: PreTrainedTokenizerFast, expected: Iterable[tuple[torch.Tensor, torch.Tensor]]
) -> dict[int, float]:
    """The count of each of the teacher's tokens in prompts and responses, and its expected count by the targets.

    `expected` are (ids [n], expected counts [n]) of the targets' teacher in this vocabulary, -1 for a token that it
    lacks. They add what the teacher might have written as well: on unseen topics they cover more of its words than
    the text alone.
    """
    counts = torch.zeros(len(tokenizer))
    for row in rows:
        example = encode(tokenizer, row)
        ids = torch.tensor([*example.prompt, *example.response])
        counts += torch.bincount(ids, minlength=len(counts))
    for ids, numbers in expected:
        counts.scatter_add_(0, ids[ids >= 0], numbers[ids >= 0])
    return {token: count for token, count in enumerate(counts.tolist()) if count > 0}
