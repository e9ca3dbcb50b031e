"""Training samples as tensors: the student's token ids, their weight, and the teacher's targets."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import torch
from transformers import PreTrainedTokenizerFast

from distill.core.errors import UserError
from distill.core.files import Row
from distill.modeling.batches import PaddedBatch, pad_batch
from distill.modeling.chat import chat_format, encode, prompt_ids, response_ids
from distill.targets.distributions import OutputStates, TopK
from distill.targets.spans import Response, SpanTargets, TokenizerPair, tokenizer_pair
from distill.targets.stored import Positions, StoredStates, StoredTopK
from distill.targets.tokenizers import align, same_family, to_student_ids


@dataclass(frozen=True)
class LayerTargets:
    """Hidden states of layers of the teacher, for each token of its response."""

    states: torch.Tensor  # [teacher's tokens, layers, width]
    positions: Positions  # for each token of the student's response, that of the teacher's that starts there


@dataclass(frozen=True)
class TeacherInputs:
    """What an online teacher reads during training, in its own tokens."""

    prompt: list[int]
    response: list[int]
    positions: Positions  # for each token of the student's response, that of the teacher's that starts there


@dataclass(frozen=True)
class TeacherBatch:
    """The inputs of an online teacher for a batch, and the position of each of the student's tokens among its own."""

    batch: PaddedBatch
    positions: torch.Tensor  # [student's tokens], among the positions of its response_mask
    known: torch.Tensor  # [student's tokens] bool, as in TopK

    def to(self, device: torch.device) -> Self:
        """The inputs on a device."""
        return type(self)(self.batch.to(device), self.positions.to(device), self.known.to(device))


@dataclass(frozen=True)
class ClassTargets:
    """The class labels that a response was chosen from, in the student's tokens."""

    labels: list[list[int]]  # each with the end of turn
    label: int  # the teacher's, by its position
    log_probs: list[float]  # the teacher's of each label, in nats, normalised over the set


SampleTargets = TopK | SpanTargets | OutputStates | TeacherInputs | ClassTargets
BatchTargets = TopK | SpanTargets | OutputStates | TeacherBatch


@dataclass(frozen=True)
class Sample:
    """One training sample; its targets have a row for every token of the response.

    With ClassTargets the response is one of the labels, and there are no `layers`.
    """

    id: str
    prompt: list[int]
    response: list[int]
    weight: float
    targets: SampleTargets | None
    layers: LayerTargets | None = None

    def __len__(self) -> int:
        return len(self.prompt) + len(self.response)

    @property
    def predicted(self) -> list[int]:
        """The tokens that the student predicts: the response, or all class labels one after the other."""
        if isinstance(self.targets, ClassTargets):
            return [token for label in self.targets.labels for token in label]
        return self.response


@dataclass(frozen=True)
class TeacherTargets:
    """The targets of rows, by row id: stored, or None for an online teacher; and hidden states of layers."""

    tokenizer: PreTrainedTokenizerFast
    stored: Mapping[str, StoredTopK | StoredStates] | None
    layers: Mapping[str, StoredStates]


def encode_samples(
    rows: Sequence[Row],
    student: PreTrainedTokenizerFast,
    max_length: int,
    teacher: TeacherTargets | None = None,
) -> list[Sample]:
    """The rows in the student's tokens, with the teacher's targets where there are some.

    A student's token that starts where a token of the teacher starts has the teacher's distribution there as its
    target; a later piece of a token that the student splits has none. A student of another tokenizer family, or of a
    base model prompted with examples, learns from top-k targets by spans of equal text (distill/targets/spans.py);
    other kinds raise UserError.
    """
    if teacher is None:
        encoded = (encode(student, row, max_length) for row in rows)
        return [
            Sample(row["id"], example.prompt, example.response, row["weight"], None)
            for row, example in zip(rows, encoded, strict=True)
        ]
    if same_family(teacher.tokenizer, student) and not chat_format(teacher.tokenizer).several_ends:
        return _aligned_samples(rows, student, max_length, teacher)
    pair = tokenizer_pair(teacher.tokenizer, student)
    return [_span_sample(row, student, max_length, teacher, pair) for row in rows]


def _aligned_samples(
    rows: Sequence[Row], student: PreTrainedTokenizerFast, max_length: int, teacher: TeacherTargets
) -> list[Sample]:
    student_ids = to_student_ids(teacher.tokenizer, student)
    result = []
    for row in rows:
        example = encode(student, row, max_length)
        response = response_ids(teacher.tokenizer, row["response"], row["finish_reason"] == "stop")
        positions = align(response, example.response, teacher.tokenizer, student)
        targets: SampleTargets
        if teacher.stored is None:
            targets = TeacherInputs(prompt_ids(teacher.tokenizer, row["messages"]), response, positions)
        else:
            targets = teacher.stored[row["id"]].for_student(positions, student_ids)
        layers = LayerTargets(teacher.layers[row["id"]].states, positions) if teacher.layers else None
        result.append(Sample(row["id"], example.prompt, example.response, row["weight"], targets, layers))
    return result


def _span_sample(
    row: Row, student: PreTrainedTokenizerFast, max_length: int, teacher: TeacherTargets, pair: TokenizerPair
) -> Sample:
    example, ended = encode(student, row, max_length), row["finish_reason"] == "stop"
    stored = None if teacher.stored is None else teacher.stored[row["id"]]
    if not isinstance(stored, StoredTopK) or teacher.layers:
        raise UserError(
            "targets.kind: must be top_k for a student of another tokenizer family, and train.distilled.hidden_loss "
            "must be null."
        )
    response = Response(response_ids(teacher.tokenizer, row["response"], ended), example.response, ended)
    return Sample(row["id"], example.prompt, example.response, row["weight"], pair.span_targets(stored, response))


def collate(batch: Sequence[Sample]) -> dict[str, Any]:
    """A batch of tokens: input_ids, attention_mask, response_mask [batch, seq]; labels, weights [tokens]; targets.

    `tokens` counts the response tokens of the whole batch, in the order of response_mask. With hidden states
    of layers there are layer_states [tokens, layers, width] and layer_known [tokens].
    """
    result: dict[str, Any] = pad_batch([(sample.prompt, sample.response) for sample in batch]).tensors()
    result |= {
        "labels": torch.tensor([token for sample in batch for token in sample.response]),
        "weights": torch.tensor([sample.weight for sample in batch for _ in sample.response]),
    }
    targets = [sample.targets for sample in batch if sample.targets is not None]
    if targets:
        result["targets"] = _collate_targets(targets)
    layers = [sample.layers for sample in batch if sample.layers is not None]
    if layers:
        result["layer_states"] = torch.cat(
            [targets.states[[position or 0 for position in targets.positions]] for targets in layers]
        )
        result["layer_known"] = torch.tensor(
            [position is not None for targets in layers for position in targets.positions]
        )
    return result


def _collate_targets(targets: Sequence[SampleTargets]) -> BatchTargets:
    """The targets of a batch; all are of one kind."""
    kind: Any = type(targets[0])
    return _teacher_batch(targets) if kind is TeacherInputs else kind.concatenate(targets)  # type: ignore[arg-type]


def _teacher_batch(inputs: Sequence[TeacherInputs]) -> TeacherBatch:
    """The teacher's own batch, and for each of the student's tokens its position among the teacher's predictions."""
    batch = pad_batch([(item.prompt, item.response) for item in inputs])
    positions: list[int] = []
    start = 0
    for item in inputs:
        positions += [start + (position or 0) for position in item.positions]
        start += len(item.response)
    known = [position is not None for item in inputs for position in item.positions]
    return TeacherBatch(batch, torch.tensor(positions), torch.tensor(known))
