"""A smaller vocabulary for the student, cut from the teacher's byte-level BPE tokenizer."""

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
from distill.targets import alignment, store, tokenizers
from distill.targets.store import Stored
from distill.targets.tokenizers import _specification


def choose(tokenizer: Any, counts: Mapping[int, float], size: int) -> list[int]:
    """The ids of `size` tokens to keep, ascending.

    All added tokens and all bytes that the teacher has; then the tokens by count, and after them the others by
    id, which is the order of frequency in which BPE learnt them. A token brings along what it is merged from,
    so that the trimmed tokenizer can still build it; one that no longer fits with its parts is left out.
    Raises UserError where `size` is too small or the tokenizer is not byte-level BPE.
    """
    spec = _specification(tokenizer)
    vocabulary = spec["model"]["vocab"]
    parents = _parents(spec)
    kept = {token["id"] for token in spec["added_tokens"]}
    kept |= {vocabulary[byte] for byte in ByteLevel.alphabet() if byte in vocabulary}
    if size < len(kept):
        raise UserError(
            f"train.student.vocabulary: {size} is too small; the special tokens and the bytes alone are {len(kept)}."
        )
    known = set(vocabulary.values()) | kept
    counted = sorted((token for token in counts if token in known), key=lambda token: (-counts[token], token))
    for token in [*counted, *sorted(known - set(counted))]:
        if len(kept) == size:
            break
        needed = _closure(token, parents) - kept
        if len(kept) + len(needed) <= size:
            kept |= needed
    return sorted(kept)


def trim(tokenizer: Any, kept: Sequence[int]) -> PreTrainedTokenizerFast:
    """The tokenizer with the kept tokens only, numbered 0.. in their old order, as a normal fast tokenizer.

    Text whose tokens are all kept is cut exactly as before; all other text is cut finer, down to bytes.
    """
    spec = _specification(tokenizer)
    new = {old: place for place, old in enumerate(kept)}
    model = spec["model"]
    old_vocabulary = model["vocab"]
    model["vocab"] = {token: new[old] for token, old in old_vocabulary.items() if old in new}
    model["merges"] = [
        pair for pair in model["merges"] if all(part in model["vocab"] for part in (*pair, "".join(pair)))
    ]
    for token in spec["added_tokens"]:
        token["id"] = new[token["id"]]
    for post in _template_tokens(spec["post_processor"]):
        post["ids"] = [new[old] for old in post["ids"]]
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
    """The share of the teacher's tokens in these texts (as ids) that are kept; 1.0 for no text."""
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
        part = todo.pop()
        if part not in result:
            result.add(part)
            todo += parents.get(part, ())
    return result


def _template_tokens(post_processor: Any) -> list[dict[str, Any]]:
    """The special tokens, with their ids, of a TemplateProcessing wherever it is nested."""
    if not isinstance(post_processor, dict):
        return []
    found = (
        list(post_processor.get("special_tokens", {}).values())
        if post_processor["type"] == "TemplateProcessing"
        else []
    )
    for part in post_processor.get("processors", []):
        found += _template_tokens(part)
    return found


def mates_of(theirs: Any, own: Any) -> torch.Tensor | None:
    """For each id of another teacher's tokenizer the id in `own` that spells the same, or -1; None for the same ids."""
    if tokenizers.fingerprint(theirs) == tokenizers.fingerprint(own):
        return None
    return alignment.shared(alignment.spelling(theirs), alignment.spelling(own), first=False)


def token_counts(
    rows: list[Row],
    tokenizer: Any,
    stored: Stored | None,
    expected: torch.Tensor | None,
    mates: torch.Tensor | None,
) -> dict[int, float]:
    """How often each of the teacher's tokens occurs in prompts and responses, and was expected by the targets' teacher.

    `mates` are `mates_of` that teacher's tokenizer; what it expects and only it can spell as one token does not count.
    The stored probabilities add what the teacher might have written as well: on unseen topics they find more
    of its words than the text alone. Whole distributions come as their sum, `expected`.
    """
    counts = torch.zeros(len(tokenizer))
    for row in rows:
        example = encode(tokenizer, row)
        ids = torch.tensor([*example.prompt, *example.response])
        counts += torch.bincount(ids, minlength=len(counts))
    for _, part in stored or ():
        if isinstance(part, store.Rows):
            _add(counts, part.ids.flatten().long(), part.log_probs.flatten().float().exp(), mates)
    if expected is not None:
        _add(counts, torch.arange(len(expected)), expected, mates)
    return {token: count for token, count in enumerate(counts.tolist()) if count > 0}


def _add(counts: torch.Tensor, ids: torch.Tensor, numbers: torch.Tensor, mates: torch.Tensor | None) -> None:
    """Adds the numbers of these ids [n] to the counts [vocab], by their mates where there are some."""
    if mates is not None:
        ids = mates[ids]
        ids, numbers = ids[ids >= 0], numbers[ids >= 0]
    counts.scatter_add_(0, ids, numbers)
