"""Answers that the student writes itself, for the teacher to judge: generalised knowledge distillation.

On-policy distillation (GKD, Agarwal et al. 2024) trains on the student's own text, where its mistakes are, usually
by reverse KL.
"""

import random
from dataclasses import dataclass
from typing import Any

import torch

from distill.modeling.batches import PaddedBatch, pad_batch
from distill.modeling.decoding import decode
from distill.modeling.sampling import Sampling, request_seed

Batch = dict[str, torch.Tensor]


@dataclass(frozen=True)
class Answering:
    """How the student answers. `theirs` [student's tokens] are the teacher's ids of the same tokens."""

    fraction: float  # of the batches whose answers are the student's own
    sampling: Sampling
    end: int  # the student's end-of-turn token
    theirs: torch.Tensor

    def batch(self, model: Any, batch: Batch, step: str) -> Batch:
        """The batch of `dataset.collate`, or in a share of steps its prompts with answers of `model`.

        Whether, and which, depends on the run's seed, the name of the step and the model alone, so that a resumed
        run goes on exactly. The teacher reads the very tokens of the student, and each row keeps its weight.
        """
        draws = random.Random(request_seed(self.sampling.seed, step))
        if draws.random() >= self.fraction:
            return batch
        prompts = _prompts(PaddedBatch.from_tensors(batch))
        seeds = [draws.getrandbits(62) for _ in prompts]
        training = model.training
        model.eval()
        responses = [tokens for tokens, _ in decode(model, prompts, seeds, self.end, self.sampling)]
        model.train(training)
        student_batch = pad_batch(list(zip(prompts, responses, strict=True)))
        theirs = [self.theirs[torch.tensor(response)].tolist() for response in responses]
        asked = _prompts(PaddedBatch.from_tensors(batch, "teacher_"))
        teacher_batch = pad_batch(list(zip(asked, theirs, strict=True)))
        lengths = torch.tensor([len(response) for response in responses])
        tokens = int(lengths.sum())
        result = student_batch.tensors() | teacher_batch.tensors("teacher_")
        result |= {
            "labels": torch.tensor([token for response in responses for token in response]),
            "weights": _row_weights(batch).cpu().repeat_interleave(lengths),
            "teacher_places": torch.arange(tokens),
            "teacher_known": torch.ones(tokens, dtype=torch.bool),
        }
        return {name: value.to(batch["input_ids"].device) for name, value in result.items()}


def _prompts(batch: PaddedBatch) -> list[list[int]]:
    """The prompts of a batch: all tokens up to the first position of the response mask."""
    ends = batch.response_mask.int().argmax(1) + 1
    return [row[:end].tolist() for row, end in zip(batch.input_ids, ends.tolist(), strict=True)]


def _row_weights(batch: Batch) -> torch.Tensor:
    """The weight of each row, [batch]."""
    lengths = batch["response_mask"].sum(1)
    return batch["weights"][lengths.cumsum(0) - lengths]
