"""A teacher that is there while the student learns: its whole distributions, in the student's vocabulary."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from distill.losses.divergences import Full
from distill.modeling.batches import PaddedBatch
from distill.modeling.forward import response_logits


@dataclass(frozen=True)
class LiveTeacher:
    """The teacher's network, and how its vocabulary is carried over to the student's."""

    model: Any
    pieces: torch.Tensor  # [teacher's tokens] student's ids, see `vocabulary.first_pieces`
    vocabulary: int  # width of the student's logits

    def of_states(self, states: torch.Tensor, known: torch.Tensor) -> Full:
        """The distributions of stored states [tokens, width]: one product with the teacher's output matrix."""
        output = self.model.get_output_embeddings()
        return self._full(lambda span: output(states[span].to(self.model.device, output.weight.dtype)), known)

    @torch.no_grad()
    def of_text(self, batch: PaddedBatch, places: torch.Tensor, known: torch.Tensor) -> Full:
        """The distributions at the `places` [tokens] among the response positions of a batch of its ids."""
        logits = response_logits(self.model, batch)
        return self._full(lambda span: logits[places[span]], known)

    def _full(self, logits: Callable[[slice], torch.Tensor], known: torch.Tensor) -> Full:
        pieces = self.pieces.to(self.model.device)

        @torch.no_grad()
        def log_probs(span: slice) -> torch.Tensor:
            # a model's logits may be more than its tokenizer has tokens: the rest is padding
            probs = logits(span)[:, : len(pieces)].float().softmax(-1)
            carried = probs.new_zeros(len(probs), self.vocabulary)
            return carried.scatter_add_(1, pieces.expand_as(probs), probs).log()

        return Full(log_probs, known)
