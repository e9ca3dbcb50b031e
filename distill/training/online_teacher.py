"""An online teacher: its full distributions during training, in the student's vocabulary."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from transformers import PreTrainedModel

from distill.modeling.forward import response_logits
from distill.targets.distributions import Full, OutputStates
from distill.training.dataset import TeacherBatch


@dataclass(frozen=True)
class OnlineTeacher:
    """The teacher's model, and how its vocabulary maps to the student's."""

    model: PreTrainedModel
    student_ids: torch.Tensor  # [teacher's tokens] student's ids, see `tokenizers.to_student_ids`
    vocab_size: int  # width of the student's logits

    def distributions(self, targets: OutputStates | TeacherBatch) -> Full:
        """The distributions of stored states, or of a forward pass over the teacher's own batch."""
        if isinstance(targets, OutputStates):
            return self._from_states(targets)
        return self._from_batch(targets)

    def _from_states(self, targets: OutputStates) -> Full:
        """One product with the teacher's output matrix."""
        output = self.model.get_output_embeddings()
        device, dtype = self.model.device, output.weight.dtype
        return self._full(lambda span: output(targets.states[span].to(device, dtype)), targets.known)

    @torch.no_grad()
    def _from_batch(self, inputs: TeacherBatch) -> Full:
        logits = response_logits(self.model, inputs.batch)
        return self._full(lambda span: logits[inputs.positions[span]], inputs.known)

    def _full(self, logits: Callable[[slice], torch.Tensor], known: torch.Tensor) -> Full:
        student_ids = self.student_ids.to(self.model.device)

        @torch.no_grad()
        def log_probs(span: slice) -> torch.Tensor:
            # a model may have more logits than its tokenizer has tokens: the rest is padding
            probs = logits(span)[:, : len(student_ids)].float().softmax(-1)
            mapped = probs.new_zeros(len(probs), self.vocab_size)
            return mapped.scatter_add_(1, student_ids.expand_as(probs), probs).log()

        return Full(log_probs, known)
