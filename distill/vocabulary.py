"""A smaller vocabulary for the student, cut from the teacher's byte-level BPE tokenizer."""

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from tokenizers import Tokenizer
from tokenizers.pre_tokenizers import ByteLevel
from transformers import PreTrainedTokenizerFast

from distill.errors import UserError


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


def align(teacher_ids: Sequence[int], student_ids: Sequence[int], teacher: Any, student: Any) -> list[int | None]:
    """For each student token of a text, the place of the teacher's token that starts at the same byte, or None."""
    starts = {start: place for place, (start, _) in enumerate(spans(teacher, teacher_ids))}
    return [starts.get(start) for start, _ in spans(student, student_ids)]


def spans(tokenizer: Any, ids: Sequence[int]) -> list[tuple[int, int]]:
    """The first byte and the end of each token in the text that the ids spell.

    A byte-level token has one character for every byte; an added token counts as its own characters.
    """
    result, end = [], 0
    for token in tokenizer.convert_ids_to_tokens(list(ids)):
        result.append((end, end + len(token)))
        end += len(token)
    return result


def first_pieces(teacher: Any, student: Any) -> torch.Tensor:
    """For each teacher id the student's id of the first piece of its text, [teacher vocabulary] long.

    It carries a teacher's distribution over to the student's vocabulary: tokens that begin alike add up.
    Raises UserError where the two are not of one family (see `same_family`).
    """
    if not same_family(teacher, student):
        raise UserError(
            f"the teacher's tokenizer ({fingerprint(teacher)[:12]}) and the student's ({fingerprint(student)[:12]}) "
            "are of different families, so that stored probabilities of one mean nothing to the other. "
            "Take a student of the teacher's family, or train with loss: cross_entropy."
        )
    own = student.get_vocab()
    cut = student.backend_tokenizer.model
    result = torch.zeros(len(teacher), dtype=torch.long)
    for token, place in teacher.get_vocab().items():
        if place < len(result):
            result[place] = own[token] if token in own else cut.tokenize(token)[0].id
    return result


def same_family(teacher: Any, student: Any) -> bool:
    """Whether the student's tokens are some of the teacher's and both cut text by the same rules before BPE."""
    if teacher is student:
        return True
    if not (_is_byte_level(teacher) and _is_byte_level(student)):
        return False
    mine, other = _specification(teacher), _specification(student)
    same_rules = all(mine[part] == other[part] for part in ("pre_tokenizer", "normalizer"))
    return same_rules and set(other["model"]["vocab"]) <= set(mine["model"]["vocab"])


def fingerprint(tokenizer: Any) -> str:
    """SHA-256 over all that decides how a tokenizer cuts text, as hex; equal sizes do not make tokenizers equal."""
    spec = json.loads(tokenizer.backend_tokenizer.to_str())
    parts = {key: spec[key] for key in ("model", "added_tokens", "pre_tokenizer", "normalizer")}
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def _is_byte_level(tokenizer: Any) -> bool:
    spec = json.loads(tokenizer.backend_tokenizer.to_str())
    return spec["model"]["type"] == "BPE" and '"ByteLevel"' in json.dumps(spec["pre_tokenizer"])


def _specification(tokenizer: Any) -> dict[str, Any]:
    if not _is_byte_level(tokenizer):
        raise UserError(
            f"the tokenizer of {tokenizer.name_or_path!r} is not byte-level BPE, so that its vocabulary cannot be "
            "trimmed. Set train.student to source: pretrained, with a student that has its own tokenizer."
        )
    return json.loads(tokenizer.backend_tokenizer.to_str())


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
