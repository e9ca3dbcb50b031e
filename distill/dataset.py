"""Training samples as tensors: the student's token ids, its weights, and the teacher's targets in its vocabulary."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from distill import targets
from distill.batches import padded
from distill.chat import encode, response_ids
from distill.losses import TopK
from distill.vocabulary import align, first_pieces


@dataclass(frozen=True)
class Sample:
    """One training sample; `top` has a row for every token of the response, or is None without stored targets."""

    id: str
    prompt: list[int]
    response: list[int]
    weight: float
    top: TopK | None

    def __len__(self) -> int:
        return len(self.prompt) + len(self.response)


def samples(
    rows: Sequence[dict[str, Any]],
    student: Any,
    max_length: int,
    teacher: Any = None,
    stored: Iterable[tuple[str, targets.Rows]] = (),
) -> list[Sample]:
    """The rows in the student's tokens, with targets where the `stored` ones and their teacher's tokenizer are given.

    A student's token that starts where a token of the teacher starts has the teacher's distribution at that
    place as its target; a later piece of a token that the student cuts finer has none.
    """
    by_id = dict(stored)
    pieces = first_pieces(teacher, student) if by_id else None
    result = []
    for row in rows:
        example = encode(student, row, max_length)
        top = None
        if pieces is not None:
            ended = row["finish_reason"] == "stop"
            places = align(response_ids(teacher, row["response"], ended), example.response, teacher, student)
            top = _in_student_vocabulary(by_id[row["id"]], places, pieces)
        result.append(Sample(row["id"], example.prompt, example.response, row["weight"], top))
    return result


def merge_duplicates(ids: torch.Tensor, probs: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Adds up the probabilities of equal ids within each row: ([tokens, k] ids, [tokens, k] probs), 0 where unused."""
    ids, order = ids.sort(dim=-1, stable=True)
    probs = probs.gather(-1, order)
    new = torch.ones_like(ids, dtype=torch.bool)
    new[:, 1:] = ids[:, 1:] != ids[:, :-1]
    place = new.cumsum(-1) - 1
    merged_ids = torch.zeros_like(ids).scatter_(-1, place, ids)
    merged = torch.zeros_like(probs).scatter_add_(-1, place, probs)
    return merged_ids, merged


def collate(batch: Sequence[Sample]) -> dict[str, torch.Tensor]:
    """A batch: input_ids, attention_mask, predicts [batch, seq]; labels, weights [tokens]; the targets' tensors.

    `tokens` counts the response tokens of the whole batch, in row order, as `padded` selects them.
    """
    ids, mask, predicts = padded([(sample.prompt, sample.response) for sample in batch])
    result = {
        "input_ids": ids,
        "attention_mask": mask,
        "predicts": predicts,
        "labels": torch.tensor([token for sample in batch for token in sample.response]),
        "weights": torch.tensor([sample.weight for sample in batch for _ in sample.response]),
    }
    tops = [sample.top for sample in batch if sample.top is not None]
    if tops:
        for name in ("ids", "log_probs", "tail", "known"):
            result[f"top_{name}"] = torch.cat([getattr(top, name) for top in tops])
    return result


def _in_student_vocabulary(rows: targets.Rows, places: list[int | None], pieces: torch.Tensor) -> TopK:
    """The teacher's rows at `places` with their ids mapped, and the k + 1 masses scaled to add up to 1."""
    known = torch.tensor([place is not None for place in places])
    index = torch.tensor([place or 0 for place in places])
    ids, probs = merge_duplicates(pieces[rows.ids[index].long()], rows.log_probs[index].float().exp())
    tail = rows.tail[index].exp()
    total = probs.sum(-1) + tail
    return TopK(ids=ids, log_probs=(probs / total[:, None]).log(), tail=(tail / total).log(), known=known)
