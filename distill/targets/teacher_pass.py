"""The teacher-forced pass over the training rows: targets, token statistics, hidden states of layers."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import torch
from tqdm import tqdm
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from distill.core.errors import UserError
from distill.modeling.batches import PaddedBatch, pad_batch
from distill.modeling.chat import Example
from distill.modeling.forward import per_example, response_layers, response_logits, response_states
from distill.modeling.sampling import request_seed
from distill.modeling.scoring import score_examples
from distill.params.targets import HiddenStateTargets, SampledTargets, Targets, TopKTargets
from distill.targets.statistics import ResponseStatistics, response_statistics
from distill.targets.stored import Stored, StoredStates, draw, top_k


@dataclass
class TeacherPass:
    """One pass of a teacher over examples. Its results in addition to the stored targets are there once it is through.

    `num_tokens` is the tokenizer's size: a model may have more logits, which are padding. `statistics` are by example
    id, `expected_counts` [num_tokens] is the sum of all distributions.
    """

    model: PreTrainedModel
    num_tokens: int
    targets: Targets
    seed: int
    statistics: dict[str, ResponseStatistics] = field(default_factory=dict)
    expected_counts: torch.Tensor = field(init=False)

    def __post_init__(self) -> None:
        self.expected_counts = torch.zeros(self.num_tokens)

    @torch.inference_mode()
    def run(self, examples: Sequence[Example]) -> Iterator[tuple[str, Stored]]:
        """Yields (example id, what is stored for it); nothing for online and on-policy targets."""
        forward = response_states if isinstance(self.targets, HiddenStateTargets) else response_logits
        with tqdm(total=sum(len(example.response) for example in examples), desc="targets", unit="token") as bar:
            for index, output in per_example(self.model, examples, self.targets.batch_tokens, forward):
                yield from self._example(examples[index], output)
                bar.update(len(output))

    def _example(self, example: Example, output: torch.Tensor) -> Iterator[tuple[str, Stored]]:
        targets = self.targets
        states = output if isinstance(targets, HiddenStateTargets) else None
        logits = (output if states is None else self.model.get_output_embeddings()(states))[:, : self.num_tokens]
        _require_finite(logits.amax(-1), example)  # -inf for some tokens is a probability of 0
        self.statistics[example.id] = response_statistics(logits, example.response)
        if targets.full:
            self.expected_counts += logits.float().softmax(-1).sum(0).cpu()
        if isinstance(targets, TopKTargets):
            yield example.id, top_k(logits, targets.top_k)
        elif isinstance(targets, SampledTargets):
            yield example.id, draw(logits, targets.num_draws, request_seed(self.seed, example.id))
        elif states is not None:
            yield example.id, StoredStates(states.bfloat16().cpu())


@torch.inference_mode()
def require_linear_logits(model: PreTrainedModel, name: str, example: Example) -> None:
    """Raises UserError where the model's logits are not its output matrix times the matrix's input."""
    batch = pad_batch([(example.prompt, example.response)])
    logits = model.get_output_embeddings()(response_states(model, batch))
    if not torch.allclose(logits, response_logits(model, batch), rtol=1e-3, atol=1e-3):
        raise UserError(
            f"targets.kind: hidden_states needs linear logits, but {name!r} changes them after the product with its "
            "output matrix (by a cap, for example). Use top_k, sampled, online or on_policy."
        )


@torch.inference_mode()
def layer_states(
    model: PreTrainedModel, examples: Sequence[Example], layers: Sequence[int], batch_tokens: int
) -> Iterator[tuple[str, StoredStates]]:
    """Yields (example id, states [tokens, layers, width] in bfloat16) from one teacher-forced pass.

    Row i is the layers' output at the position that predicts the i-th token of the response, before any final norm.
    Raises UserError for a layer that the model does not have.
    """
    total = model.config.get_text_config().num_hidden_layers
    if max(layers) >= total:
        raise UserError(f"targets.layers: the teacher's layers are 0 to {total - 1}, got {list(layers)}.")

    def forward(model: PreTrainedModel, batch: PaddedBatch) -> torch.Tensor:
        _, outputs = response_layers(model, batch, layers, logits=False)
        return torch.stack([output.bfloat16() for output in outputs], dim=1).cpu()

    with tqdm(total=sum(len(example.response) for example in examples), desc="layers", unit="token") as bar:
        for index, states in per_example(model, examples, batch_tokens, forward):
            _require_finite(states, examples[index])
            yield examples[index].id, StoredStates(states)
            bar.update(len(states))


def log_probs_without_prompt(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, examples: Sequence[Example], batch_tokens: int
) -> dict[str, float]:
    """The mean log-probability of each response's tokens by example id, from a pass without the prompts.

    The token before the first is the one that begins a text, or ends one where the model has no such token.
    """
    first = tokenizer.eos_token_id if tokenizer.bos_token_id is None else tokenizer.bos_token_id
    alone = [Example(example.id, [first], example.response) for example in examples]
    return {
        alone[index].id: sum(score.log_probs) / len(score.log_probs)
        for index, score in score_examples(model, alone, batch_tokens)
    }


def _require_finite(values: torch.Tensor, example: Example) -> None:
    """Raises UserError for values of the teacher that are not finite."""
    wrong = values[~values.isfinite()]
    if len(wrong):
        raise UserError(
            f"The teacher's logits and states must be finite, got {float(wrong[0])} for the response of row "
            f"{example.id!r}. Use a teacher with sound weights, or set runtime.dtype to float32."
        )
