"""A teacher that is asked in the step, and the same from its stored states."""

import pytest
import tiny
import torch

from distill.losses.divergences import DIVERGENCES, Settings, TopK, total
from distill.modeling.batches import PaddedBatch, pad_batch
from distill.modeling.chat import encode
from distill.modeling.forward import response_states
from distill.students import vocabulary
from distill.targets import store, tokenizers
from distill.training import dataset
from distill.training.online_teacher import LiveTeacher

ROWS = [
    tiny.weighted("ants", "What is honey?", 2.0),
    tiny.weighted("jazz", "people like jazz, maple and the fox", 0.5),
]


@pytest.fixture(scope="module")
def whole():
    return tiny.tokenizer()


@pytest.fixture(scope="module")
def small(whole):
    """A student's tokenizer that cuts some of the teacher's tokens finer."""
    return vocabulary.trim(whole, vocabulary.choose(whole, {}, 290))


@pytest.fixture(scope="module")
def network(whole):
    return tiny.model(len(whole) + 8)  # eight rows of padding, as vocabularies of one family have


@pytest.fixture(scope="module")
def teacher(whole, small, network):
    return LiveTeacher(network, tokenizers.first_pieces(whole, small), len(small))


def states(network, whole) -> dict[str, store.States]:
    """What stage weight stores of kind hidden."""
    found = {}
    for row in ROWS:
        example = encode(whole, row)
        with torch.no_grad():
            passed = response_states(network, pad_batch([(example.prompt, example.response)]))
        found[row["id"]] = store.States(passed.bfloat16())
    return found


def asked(teacher, whole, small):
    batch = dataset.collate(dataset.samples(ROWS, small, 256, whole, None))
    return batch, teacher.of_text(
        PaddedBatch.from_tensors(batch, "teacher_"), batch["teacher_places"], batch["teacher_known"]
    )


def test_the_distribution_is_that_of_a_plain_forward_pass_carried_over_token_by_token(teacher, whole, small, network):
    batch, full = asked(teacher, whole, small)
    found = full.log_probs(slice(0, 1000)).exp()
    pieces = teacher.pieces.tolist()
    start = 0
    for row, sample in zip(ROWS, dataset.samples(ROWS, small, 256, whole, None), strict=True):
        example = encode(whole, row)
        logits = network(torch.tensor([[*example.prompt, *example.response]])).logits[0, :, : len(whole)]
        probs = logits.softmax(-1).detach()
        for place, theirs in enumerate(sample.asked.places):
            if theirs is None:
                assert not full.known[start + place]
                continue
            expected = torch.zeros(len(small))
            for token, share in enumerate(probs[len(example.prompt) - 1 + theirs].tolist()):
                expected[pieces[token]] += share
            torch.testing.assert_close(found[start + place], expected, rtol=1e-4, atol=1e-6)
        start += len(sample.response)
    assert start == len(batch["labels"]) == len(full.known)
    assert not full.known.all(), "no token was cut finer, so that the test says little"


def test_teacher_and_student_read_the_same_prompt(whole, small):
    for sample in dataset.samples(ROWS, small, 256, whole, None):
        assert small.decode(sample.prompt) == whole.decode(sample.asked.prompt)
        assert small.decode(sample.response) == whole.decode(sample.asked.response)
        assert len(sample.prompt) > len(sample.asked.prompt), "nothing was cut finer, so that the test says little"


@pytest.mark.parametrize("loss", DIVERGENCES)
def test_stored_states_and_the_whole_vocabulary_stored_give_the_loss_of_asking(teacher, whole, small, network, loss):
    """Chunk by chunk, with what bfloat16 and float16 round."""
    batch, full = asked(teacher, whole, small)
    logits = torch.randn(len(batch["labels"]), len(small), generator=torch.Generator().manual_seed(1))
    settings = Settings(loss, 0.2, 1.0, 0.5, "bucket")
    online = total(logits, batch["labels"], batch["weights"], full, settings, chunk=3) / batch["weights"].sum()
    kept = states(network, whole)
    hidden = dataset.collate(dataset.samples(ROWS, small, 256, whole, kept.items()))
    from_states = teacher.of_states(hidden["teacher_states"], hidden["teacher_known"])
    stored = total(logits, batch["labels"], batch["weights"], from_states, settings, chunk=5) / batch["weights"].sum()
    assert stored.item() == pytest.approx(online.item(), rel=1e-3)
    output = network.get_output_embeddings()
    rows = {name: store.top_k(output(part.states.float())[:, : len(whole)], 999) for name, part in kept.items()}
    top = dataset.collate(dataset.samples(ROWS, small, 256, whole, rows.items()))
    targets_of = TopK(*(top[f"top_{name}"] for name in ("ids", "log_probs", "tail", "known")))
    best = total(logits, top["labels"], top["weights"], targets_of, settings) / batch["weights"].sum()
    assert best.item() == pytest.approx(online.item(), rel=2e-3)


def test_no_gradient_reaches_the_teacher(teacher, whole, small, network):
    batch, full = asked(teacher, whole, small)
    logits = torch.zeros(len(batch["labels"]), len(small), requires_grad=True)
    total(logits, batch["labels"], batch["weights"], full, Settings("forward_kl", 0.0, 1.0, 0.5, "bucket")).backward()
    assert logits.grad.abs().max() > 0
    assert all(part.grad is None for part in network.parameters())
