"""The teacher's pass over the training rows, compared with plain forward passes."""

import numpy as np
import pytest
import tiny
import torch
from scipy.stats import entropy
from transformers import Gemma2Config, Gemma2ForCausalLM

from distill.core.errors import UserError
from distill.modeling.batches import length_batches
from distill.modeling.chat import Example, encode
from distill.params.loading import check_params
from distill.params.targets import Targets
from distill.targets.teacher_pass import TeacherPass, layer_states, log_probs_without_prompt, require_linear_logits

OPTIONS = {"top_k": {"top_k": 8}, "sampled": {"num_draws": 50}, "hidden_states": {}, "online": {}}


def targets(kind: str, batch_tokens: int = 64) -> Targets:
    """The section targets of this kind."""
    shared = {"teacher": "tiny", "batch_tokens": batch_tokens, "layers": None, "score_without_prompt": False}
    section = {"kind": kind} | shared | OPTIONS[kind]
    tail = "bucket" if kind == "top_k" else None
    result = check_params(tiny.params(targets=section, train__distilled__loss__tail=tail)).targets
    assert result is not None
    return result


def example(tokenizer, number: int, topic: str = "ants") -> Example:
    """A response that is the longer, the higher its number."""
    row = tiny.weighted(topic, f"ants | bread {'and kites ' * number}".strip(), 1.0)
    return encode(tokenizer, row | {"id": f"{topic}/{number}"})


def plain_logits(model, example: Example) -> torch.Tensor:
    """The logits that predict the response, [tokens, vocab], by a plain forward pass."""
    return model(torch.tensor([[*example.prompt, *example.response]])).logits[0, len(example.prompt) - 1 : -1].detach()


def mean_log_prob(model, ids: list[int], start: int) -> float:
    """The mean log-probability of ids[start:] by a plain forward pass."""
    log_probs = model(torch.tensor([ids])).logits[0].log_softmax(-1).detach()
    return float(np.mean([float(log_probs[index - 1, ids[index]]) for index in range(start, len(ids))]))


@pytest.fixture(scope="module")
def teacher():
    tokenizer = tiny.tokenizer()
    return tiny.model(len(tokenizer)), tokenizer


def test_log_probs_with_and_without_prompt_are_those_of_plain_passes(teacher):
    model, tokenizer = teacher
    examples = [example(tokenizer, number) for number in range(4)]
    teacher_pass = TeacherPass(model, len(tokenizer), targets("top_k"), 0)
    list(teacher_pass.run(examples))
    alone = log_probs_without_prompt(model, tokenizer, examples, 64)
    for each in examples:
        with_prompt = mean_log_prob(model, [*each.prompt, *each.response], len(each.prompt))
        without_prompt = mean_log_prob(model, [tokenizer.bos_token_id, *each.response], 1)
        assert teacher_pass.statistics[each.id].with_prompt == pytest.approx(with_prompt, rel=1e-4)
        assert alone[each.id] == pytest.approx(without_prompt, rel=1e-4)
    assert len(teacher_pass.statistics) == 4


def test_entropies_and_margins_are_those_of_scipy(teacher):
    model, tokenizer = teacher
    each = example(tokenizer, 1)
    teacher_pass = TeacherPass(model, len(tokenizer), targets("top_k"), 0)
    list(teacher_pass.run([each]))
    statistics = teacher_pass.statistics[each.id]
    probs = plain_logits(model, each).softmax(-1).numpy()
    assert len(statistics.entropies) == len(statistics.margins) == len(each.response)
    for index, row in enumerate(probs):
        second, best = np.sort(row)[-2:]
        assert statistics.entropies[index] == pytest.approx(entropy(row), rel=1e-4)
        assert statistics.margins[index] == pytest.approx(np.log(best / second), abs=1e-4)


@pytest.mark.parametrize("kind", ["top_k", "hidden_states"])
def test_rows_of_a_ragged_batch_are_stored_as_rows_alone(teacher, kind):
    model, tokenizer = teacher
    section = targets(kind, batch_tokens=1000)
    examples = [example(tokenizer, number, topic) for number, topic in enumerate(tiny.TOPICS[:4])]
    assert len(length_batches(examples, 1000)) == 1
    assert len({len(each.response) for each in examples}) > 1
    together = dict(TeacherPass(model, len(tokenizer), section, 0).run(examples))
    for each in examples:
        ((_, alone),) = TeacherPass(model, len(tokenizer), section, 0).run([each])
        for name, tensor in vars(alone).items():
            torch.testing.assert_close(getattr(together[each.id], name), tensor, rtol=1e-2, atol=1e-2)
        if kind == "top_k":
            assert torch.equal(alone.ids[:, 0], plain_logits(model, each).argmax(-1).int())


@pytest.mark.parametrize("kind", ["hidden_states", "online"])
def test_expected_counts_are_the_sum_of_plain_distributions(teacher, kind):
    model, tokenizer = teacher
    examples = [example(tokenizer, number) for number in range(3)]
    teacher_pass = TeacherPass(model, len(tokenizer), targets(kind), 0)
    stored = dict(teacher_pass.run(examples))
    assert sorted(stored) == (sorted(each.id for each in examples) if kind == "hidden_states" else [])
    plain = sum(plain_logits(model, each).softmax(-1).sum(0) for each in examples)
    torch.testing.assert_close(teacher_pass.expected_counts, plain, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", ["top_k", "sampled", "hidden_states"])
def test_logits_beyond_the_tokenizer_have_no_mass(teacher, kind):
    """As Qwen2.5's 151,936 and 152,064 logits for one tokenizer of 151,665 tokens."""
    tokenizer = teacher[1]
    padded = tiny.model(len(tokenizer) + 40)
    with torch.no_grad():
        padded.get_input_embeddings().weight[len(tokenizer) :] *= 20
    examples = [example(tokenizer, number) for number in range(2)]
    assert any(
        padded(torch.tensor([each.prompt])).logits.argmax() % padded.vocab_size >= len(tokenizer) for each in examples
    )
    sums = []
    for each in examples:
        teacher_pass = TeacherPass(padded, len(tokenizer), targets(kind), 0)
        stored = dict(teacher_pass.run([each]))
        exact = plain_logits(padded, each)[:, : len(tokenizer)].log_softmax(-1)
        entropies = torch.special.entr(exact.exp()).sum(-1).tolist()
        assert teacher_pass.statistics[each.id].entropies == pytest.approx(entropies, rel=1e-3)
        if kind == "hidden_states":
            sums.append(float(teacher_pass.expected_counts.sum()))
        else:
            assert max(int(rows.ids.max()) for rows in stored.values()) < len(tokenizer)
    if kind == "hidden_states":
        assert sums == pytest.approx([len(each.response) for each in examples], rel=1e-4)


def test_states_of_a_teacher_without_linear_logits_are_refused(teacher):
    model, tokenizer = teacher
    each = example(tokenizer, 1)
    require_linear_logits(model, "tiny", each)
    capped = Gemma2ForCausalLM(
        Gemma2Config(
            vocab_size=len(tokenizer), hidden_size=32, intermediate_size=64, num_hidden_layers=2, head_dim=8,
            num_attention_heads=4, num_key_value_heads=2, final_logit_softcapping=0.1, pad_token_id=2,
        )
    ).eval()  # fmt: skip
    with pytest.raises(UserError, match=r"targets.kind: hidden_states needs linear logits, but 'capped' changes them"):
        require_linear_logits(capped, "capped", each)


@pytest.mark.parametrize("kind", OPTIONS)
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_logits_that_are_not_finite_are_refused(kind, value):
    tokenizer = tiny.tokenizer()
    model = tiny.model(len(tokenizer), layers=1)
    with torch.no_grad():
        model.model.norm.weight[0] = value
    with pytest.raises(UserError, match=r"must be finite, got .* row 'ants/1'\. Use a teacher with sound weights"):
        list(TeacherPass(model, len(tokenizer), targets(kind), 0).run([example(tokenizer, 1)]))


def test_layers_that_are_not_finite_are_refused():
    tokenizer = tiny.tokenizer()
    model = tiny.model(len(tokenizer), layers=2)
    with torch.no_grad():
        model.model.layers[1].mlp.down_proj.weight[0, 0] = float("inf")
    list(layer_states(model, [example(tokenizer, 1)], [0], 64))
    with pytest.raises(UserError, match=r"must be finite, got .* row 'ants/1'"):
        list(layer_states(model, [example(tokenizer, 1)], [0, 1], 64))
