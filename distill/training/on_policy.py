"""On-policy distillation: the student writes responses and the teacher scores them.

Generalised knowledge distillation (GKD, Agarwal et al. 2024) trains on the student's own text, where its mistakes are,
usually by reverse KL.
"""

import random
from dataclasses import dataclass
from typing import Any

import torch
from transformers import PreTrainedModel

from distill.modeling.batches import PaddedBatch, pad_batch
from distill.modeling.decoding import decode
from distill.modeling.sampling import Sampling, request_seed
from distill.training.dataset import TeacherBatch

Batch = dict[str, Any]


@dataclass(frozen=True)
class OnPolicy:
    """How the student writes responses. `teacher_ids` [student's tokens] are the teacher's ids of the same tokens."""

    fraction: float  # of the batches with responses of the student
    sampling: Sampling
    end: int  # the student's end-of-turn token
    teacher_ids: torch.Tensor

    def batch(self, model: PreTrainedModel, batch: Batch, step: str) -> Batch:
        """The batch of `dataset.collate`, or for a fraction of steps its prompts with responses of `model`.

        Whether, and which, depends on the run's seed, the name of the step and the model alone, so that a resumed run
        continues exactly. The teacher reads the very tokens of the student, and each row keeps its weight.
        """
        draws = random.Random(request_seed(self.sampling.seed, step))
        if draws.random() >= self.fraction:
            return batch
        before = PaddedBatch.from_tensors(batch)
        prompts = _prompts(before)
        seeds = [draws.getrandbits(62) for _ in prompts]
        training = model.training
        model.eval()
        responses = [tokens for tokens, _ in decode(model, prompts, seeds, self.end, self.sampling)]
        model.train(training)
        lengths = torch.tensor([len(response) for response in responses])
        result: Batch = pad_batch(list(zip(prompts, responses, strict=True))).tensors()
        result |= {
            "labels": torch.tensor([token for response in responses for token in response]),
            "weights": _row_weights(before, batch["weights"]).cpu().repeat_interleave(lengths),
            "targets": self._teacher_batch(batch["targets"], responses),
        }
        return {name: value.to(batch["input_ids"].device) for name, value in result.items()}

    def _teacher_batch(self, before: TeacherBatch, responses: list[list[int]]) -> TeacherBatch:
        """The teacher's prompts with the student's responses."""
        prompts = _prompts(before.batch)
        ids = [self.teacher_ids[torch.tensor(response)].tolist() for response in responses]
        tokens = sum(map(len, responses))
        batch = pad_batch(list(zip(prompts, ids, strict=True)))
        return TeacherBatch(batch, torch.arange(tokens), torch.ones(tokens, dtype=torch.bool))


def _prompts(batch: PaddedBatch) -> list[list[int]]:
    """The prompts of a batch: all up to the first position that predicts a response token."""
    first = batch.response_mask.int().argmax(1)
    return [row[: int(last) + 1].tolist() for row, last in zip(batch.input_ids, first, strict=True)]


def _row_weights(batch: PaddedBatch, weights: torch.Tensor) -> torch.Tensor:
    """The weight of each row, [batch], from those of its tokens."""
    lengths = batch.response_mask.sum(1)
    return weights[lengths.cumsum(0) - lengths]
