"""Comparison and mapping of teacher and student tokenizers."""

import hashlib
import json
from collections.abc import Sequence
from typing import Any

import torch
from transformers import PreTrainedTokenizerFast

from distill.core.errors import UserError


def align(
    teacher_ids: Sequence[int],
    student_ids: Sequence[int],
    teacher: PreTrainedTokenizerFast,
    student: PreTrainedTokenizerFast,
) -> list[int | None]:
    """For each student token of a text, the position of the teacher's token that starts at the same byte, or None."""
    starts = {start: position for position, (start, _) in enumerate(spans(teacher, teacher_ids))}
    return [starts.get(start) for start, _ in spans(student, student_ids)]


def spans(tokenizer: PreTrainedTokenizerFast, ids: Sequence[int]) -> list[tuple[int, int]]:
    """The first byte and the end of each token in the text that the ids spell.

    A byte-level token has one character for every byte; an added token counts as its own characters.
    """
    result, end = [], 0
    for token in tokenizer.convert_ids_to_tokens(list(ids)):
        result.append((end, end + len(token)))
        end += len(token)
    return result


def to_student_ids(teacher: PreTrainedTokenizerFast, student: PreTrainedTokenizerFast) -> torch.Tensor:
    """For each teacher id the student's id of the first piece of its text, [teacher vocabulary] long.

    It carries a teacher's distribution over to the student's vocabulary: tokens that begin alike add up.
    Raises UserError where the two are not of one family (see `same_family`).
    """
    if not same_family(teacher, student):
        raise UserError(
            f"the teacher's tokenizer ({fingerprint(teacher)[:12]}) and the student's ({fingerprint(student)[:12]}) "
            "are of different families, so that stored probabilities of one mean nothing to the other. "
            "Take a student of the teacher's family, or train with loss kind cross_entropy."
        )
    student_vocab = student.get_vocab()
    bpe = student.backend_tokenizer.model
    result = torch.zeros(len(teacher), dtype=torch.long)
    for token, teacher_id in teacher.get_vocab().items():
        if teacher_id < len(result):
            result[teacher_id] = student_vocab[token] if token in student_vocab else bpe.tokenize(token)[0].id
    return result


def same_family(teacher: PreTrainedTokenizerFast, student: PreTrainedTokenizerFast) -> bool:
    """Whether the student's tokens are some of the teacher's and both split text by the same rules before BPE."""
    if teacher is student:
        return True
    if not (is_byte_level(teacher) and is_byte_level(student)):
        return False
    teacher_spec, student_spec = specification(teacher), specification(student)
    same_rules = all(teacher_spec[key] == student_spec[key] for key in ("pre_tokenizer", "normalizer"))
    return same_rules and set(student_spec["model"]["vocab"]) <= set(teacher_spec["model"]["vocab"])


def fingerprint(tokenizer: PreTrainedTokenizerFast) -> str:
    """SHA-256 over all that decides how a tokenizer splits text, as hex; equal sizes do not make tokenizers equal."""
    spec = json.loads(tokenizer.backend_tokenizer.to_str())
    fields = {key: spec[key] for key in ("model", "added_tokens", "pre_tokenizer", "normalizer")}
    return hashlib.sha256(json.dumps(fields, sort_keys=True).encode()).hexdigest()


def is_byte_level(tokenizer: PreTrainedTokenizerFast) -> bool:
    """Whether the tokenizer is byte-level BPE."""
    spec = json.loads(tokenizer.backend_tokenizer.to_str())
    return spec["model"]["type"] == "BPE" and '"ByteLevel"' in json.dumps(spec["pre_tokenizer"])


def specification(tokenizer: PreTrainedTokenizerFast) -> dict[str, Any]:
    """The tokenizer as in tokenizer.json. Raises UserError where it is not byte-level BPE."""
    if not is_byte_level(tokenizer):
        raise UserError(
            f"the tokenizer of {tokenizer.name_or_path!r} is not byte-level BPE, so that its vocabulary cannot be "
            "trimmed. Set init.source to pretrained, with a student that has its own tokenizer."
        )
    return json.loads(tokenizer.backend_tokenizer.to_str())


def to_teacher_ids(teacher: PreTrainedTokenizerFast, student: PreTrainedTokenizerFast) -> torch.Tensor:
    """The teacher's id of each of the student's tokens, [student's tokens]; both of one family, as trained on."""
    teacher_vocab = teacher.get_vocab()
    result = torch.zeros(len(student), dtype=torch.long)
    for token, student_id in student.get_vocab().items():
        result[student_id] = teacher_vocab[token]
    return result
