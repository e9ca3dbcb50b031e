"""A teacher that runs in each training step, and the same one from its stored states."""

import pytest
import tiny
import torch

from distill.losses.divergences import DIVERGENCES
from distill.losses.logit_loss import LossSettings, logit_loss
from distill.modeling.batches import pad_batch
from distill.modeling.chat import encode
from distill.modeling.forward import response_states
from distill.students.vocabulary import select_tokens, trim_tokenizer
from distill.targets.stored import StoredStates, top_k
from distill.targets.tokenizers import to_student_ids
from distill.training.dataset import TeacherTargets, collate, encode_samples
from distill.training.online_teacher import OnlineTeacher

ROWS = [
    tiny.weighted("ants", "What is honey?", 2.0),
    tiny.weighted("jazz", "people like jazz, maple and the fox", 0.5),
]


@pytest.fixture(scope="module")
def tokenizer():
    return tiny.tokenizer()


@pytest.fixture(scope="module")
def trimmed(tokenizer):
    """A student's tokenizer that cuts some of the teacher's tokens finer."""
    return trim_tokenizer(tokenizer, select_tokens(tokenizer, {}, 290))


@pytest.fixture(scope="module")
def model(tokenizer):
    return tiny.model(len(tokenizer) + 8)  # eight rows of padding, as vocabularies of one family have


@pytest.fixture(scope="module")
def teacher(tokenizer, trimmed, model):
    return OnlineTeacher(model, to_student_ids(tokenizer, trimmed), len(trimmed))


def states(model, tokenizer) -> dict[str, StoredStates]:
    """What stage targets stores of kind hidden_states."""
    actual = {}
    for row in ROWS:
        example = encode(tokenizer, row)
        with torch.no_grad():
            passed = response_states(model, pad_batch([(example.prompt, example.response)]))
        actual[row["id"]] = StoredStates(passed.bfloat16())
    return actual


def batch_and_distributions(teacher, tokenizer, trimmed):
    batch = collate(encode_samples(ROWS, trimmed, 256, TeacherTargets(tokenizer, None, {})))
    return batch, teacher.distributions(batch["targets"])


def test_distributions_equal_a_mapped_forward_pass(teacher, tokenizer, trimmed, model):
    batch, full = batch_and_distributions(teacher, tokenizer, trimmed)
    actual = full.log_probs(slice(0, 1000)).exp()
    student_ids = teacher.student_ids.tolist()
    start = 0
    for row, sample in zip(ROWS, encode_samples(ROWS, trimmed, 256, TeacherTargets(tokenizer, None, {})), strict=True):
        example = encode(tokenizer, row)
        logits = model(torch.tensor([[*example.prompt, *example.response]])).logits[0, :, : len(tokenizer)]
        probs = logits.softmax(-1).detach()
        for position, teacher_position in enumerate(sample.targets.positions):
            if teacher_position is None:
                assert not full.known[start + position]
                continue
            expected = torch.zeros(len(trimmed))
            for token, prob in enumerate(probs[len(example.prompt) - 1 + teacher_position].tolist()):
                expected[student_ids[token]] += prob
            torch.testing.assert_close(actual[start + position], expected, rtol=1e-4, atol=1e-6)
        start += len(sample.response)
    assert start == len(batch["labels"]) == len(full.known)
    assert not full.known.all(), "no token was cut finer, so that the test says little"


def test_teacher_and_student_read_the_same_prompt(tokenizer, trimmed):
    for sample in encode_samples(ROWS, trimmed, 256, TeacherTargets(tokenizer, None, {})):
        assert trimmed.decode(sample.prompt) == tokenizer.decode(sample.targets.prompt)
        assert trimmed.decode(sample.response) == tokenizer.decode(sample.targets.response)
        assert len(sample.prompt) > len(sample.targets.prompt), "nothing was cut finer, so that the test says little"


@pytest.mark.parametrize("loss", DIVERGENCES)
def test_stored_states_give_the_loss_of_the_online_teacher(teacher, tokenizer, trimmed, model, loss):
    """Chunk by chunk, with what bfloat16 and float16 round."""
    batch, full = batch_and_distributions(teacher, tokenizer, trimmed)
    logits = torch.randn(len(batch["labels"]), len(trimmed), generator=torch.Generator().manual_seed(1))
    settings = LossSettings(loss, ce_weight=0.2, tail="bucket")
    online = logit_loss(logits, batch["labels"], batch["weights"], full, settings, chunk=3) / batch["weights"].sum()
    kept = states(model, tokenizer)
    hidden = collate(encode_samples(ROWS, trimmed, 256, TeacherTargets(tokenizer, kept, {})))
    from_states = teacher.distributions(hidden["targets"])
    stored = (
        logit_loss(logits, batch["labels"], batch["weights"], from_states, settings, chunk=5) / batch["weights"].sum()
    )
    assert stored.item() == pytest.approx(online.item(), rel=1e-3)
    output = model.get_output_embeddings()
    rows = {name: top_k(output(part.states.float())[:, : len(tokenizer)], 999) for name, part in kept.items()}
    top = collate(encode_samples(ROWS, trimmed, 256, TeacherTargets(tokenizer, rows, {})))
    best = logit_loss(logits, top["labels"], top["weights"], top["targets"], settings) / batch["weights"].sum()
    assert best.item() == pytest.approx(online.item(), rel=2e-3)


def test_no_gradient_reaches_the_teacher(teacher, tokenizer, trimmed, model):
    batch, full = batch_and_distributions(teacher, tokenizer, trimmed)
    logits = torch.zeros(len(batch["labels"]), len(trimmed), requires_grad=True)
    logit_loss(logits, batch["labels"], batch["weights"], full, LossSettings("forward_kl", ce_weight=0.0)).backward()
    assert logits.grad.abs().max() > 0
    assert all(part.grad is None for part in model.parameters())
