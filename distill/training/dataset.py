"""Training samples as tensors: the student's token ids, its weights, and the teacher's targets in its vocabulary."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from distill.core.errors import UserError
from distill.losses.divergences import TopK
from distill.modeling import few_shot
from distill.modeling.batches import pad_batch
from distill.modeling.chat import encode, prompt_ids, response_ids
from distill.targets import store
from distill.targets.spans import SpanTargets, pair
from distill.targets.tokenizers import align, first_pieces, same_family


@dataclass(frozen=True)
class States:
    """What entered the teacher's output matrix, for each token of the student's response."""

    states: torch.Tensor  # [tokens, width]
    known: torch.Tensor  # [tokens] bool: false where the teacher has none, as in TopK


@dataclass(frozen=True)
class Layers:
    """What layers of the teacher handed on, for each token of its response, and which of them the student's have."""

    states: torch.Tensor  # [teacher's tokens, layers, width]
    places: list[int | None]  # for each token of the student's response, that of the teacher's that starts there


@dataclass(frozen=True)
class Asked:
    """What the teacher reads when it is asked during training, in its own tokens."""

    prompt: list[int]
    response: list[int]
    places: list[int | None]  # for each token of the student's response, that of the teacher's that starts there


@dataclass(frozen=True)
class Choice:
    """The closed set that a response was chosen from, in the student's tokens."""

    labels: list[list[int]]  # each with the end of turn
    chosen: int  # the teacher's label, by its place
    log_probs: list[float]  # the teacher's of each label, in nats, normalised over the set


@dataclass(frozen=True)
class Sample:
    """One training sample; what it has of the teacher has a row for every token of the response.

    At most one of `top` (stored or drawn tokens), `states` and `asked` is there, and `layers` beside each. With a
    `choice` the response is one of its labels, and nothing else is there.
    """

    id: str
    prompt: list[int]
    response: list[int]
    weight: float
    top: TopK | SpanTargets | None
    states: States | None = None
    asked: Asked | None = None
    layers: Layers | None = None
    choice: Choice | None = None

    def __len__(self) -> int:
        return len(self.prompt) + len(self.response)

    @property
    def predicted(self) -> list[int]:
        """The tokens that the student predicts: the response, or all labels of a choice one after the other."""
        return self.response if self.choice is None else [token for label in self.choice.labels for token in label]


def samples(
    rows: Sequence[dict[str, Any]],
    student: Any,
    max_length: int,
    teacher: Any = None,
    stored: Iterable[tuple[str, store.Rows | store.States]] | None = None,
    layers: Iterable[tuple[str, store.States]] = (),
) -> list[Sample]:
    """The rows in the student's tokens; with targets where the tokenizer of their teacher is given.

    They are the `stored` ones, or with None what the teacher is asked during training. A student's token that starts
    where a token of the teacher starts has the teacher's distribution at that place as its target; a later piece of a
    token that the student cuts finer has none. A student of another tokenizer family, or one of a base model prompted
    with examples, learns from stored top-k targets by spans of equal text (distill/losses/cross_tokenizer.py); other
    kinds raise UserError. `layers` are the stored states of the teacher's layers, where layers of the student learn
    from them.
    """
    by_id = None if stored is None else dict(stored)
    of_layers = dict(layers)
    alike = teacher is not None and same_family(teacher, student) and not few_shot.is_used(teacher)
    both = None if teacher is None or alike else pair(teacher, student)
    pieces = None if teacher is None or both is not None else first_pieces(teacher, student)
    result = []
    for row in rows:
        example = encode(student, row, max_length)
        given: dict[str, Any] = {"top": None}
        if both is not None:
            ended = row["finish_reason"] == "stop"
            found = None if by_id is None else by_id[row["id"]]
            if not isinstance(found, store.Rows) or of_layers:
                raise UserError(
                    "weight.targets.kind: a student of another tokenizer family can learn from `stored` targets only, "
                    "and with train.distilled.layer_loss null."
                )
            given["top"] = both.targets(found, response_ids(teacher, row["response"], ended), example.response, ended)
        elif pieces is not None:
            theirs = response_ids(teacher, row["response"], row["finish_reason"] == "stop")
            places = align(theirs, example.response, teacher, student)
            if by_id is None:
                given["asked"] = Asked(prompt_ids(teacher, row["messages"]), theirs, places)
            else:
                given |= _at(places, by_id[row["id"]], pieces)
            if of_layers:
                given["layers"] = Layers(of_layers[row["id"]].states, places)
        result.append(Sample(row["id"], example.prompt, example.response, row["weight"], **given))
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
    """A batch: the tensors of a PaddedBatch; labels, weights [tokens]; the targets' tensors.

    `tokens` counts the response tokens of the whole batch, in row order, as `response_mask` selects them.
    """
    result = pad_batch([(sample.prompt, sample.response) for sample in batch]).tensors() | {
        "labels": torch.tensor([token for sample in batch for token in sample.response]),
        "weights": torch.tensor([sample.weight for sample in batch for _ in sample.response]),
    }
    tops = [sample.top for sample in batch if sample.top is not None]
    if tops:
        for name in vars(tops[0]):
            result[f"top_{name}"] = torch.cat([getattr(top, name) for top in tops])
    states = [sample.states for sample in batch if sample.states is not None]
    if states:
        result["teacher_states"] = torch.cat([part.states for part in states])
        result["teacher_known"] = torch.cat([part.known for part in states])
    asked = [sample.asked for sample in batch if sample.asked is not None]
    if asked:
        result |= _questions(asked)
    layers = [sample.layers for sample in batch if sample.layers is not None]
    if layers:
        result["layer_states"] = torch.cat([part.states[[place or 0 for place in part.places]] for part in layers])
        result["layer_known"] = torch.tensor([place is not None for part in layers for place in part.places])
    return result


def _questions(asked: Sequence[Asked]) -> dict[str, torch.Tensor]:
    """The teacher's own batch, and for each of the student's tokens its place among the teacher's predictions."""
    places: list[int] = []
    start = 0
    for one in asked:
        places += [start + (place or 0) for place in one.places]
        start += len(one.response)
    return pad_batch([(one.prompt, one.response) for one in asked]).tensors("teacher_") | {
        "teacher_places": torch.tensor(places),
        "teacher_known": torch.tensor([place is not None for one in asked for place in one.places]),
    }


def _at(places: list[int | None], rows: store.Rows | store.States, pieces: torch.Tensor) -> dict[str, Any]:
    """The fields of a Sample that hold the stored rows at these places."""
    if isinstance(rows, store.Rows):
        return {"top": _in_student_vocabulary(rows, places, pieces)}
    known = torch.tensor([place is not None for place in places])
    return {"top": None, "states": States(rows.states[[place or 0 for place in places]], known)}


def _in_student_vocabulary(rows: store.Rows, places: list[int | None], pieces: torch.Tensor) -> TopK:
    """The teacher's rows at `places` with their ids mapped, and the k + 1 masses scaled to add up to 1."""
    known = torch.tensor([place is not None for place in places])
    index = torch.tensor([place or 0 for place in places])
    ids, probs = merge_duplicates(pieces[rows.ids[index].long()], rows.log_probs[index].float().exp())
    tail = rows.tail[index].exp()
    total = probs.sum(-1) + tail
    return TopK(ids=ids, log_probs=(probs / total[:, None]).log(), tail=(tail / total).log(), known=known)
