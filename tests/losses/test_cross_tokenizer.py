import math

import pytest
import tiny
import torch
from other_tokenizers import OTHER, PIECES
from torch.nn.functional import cross_entropy

from distill.losses import cross_tokenizer, divergences
from distill.losses.cross_tokenizer import sorted_distance
from distill.losses.divergences import DIVERGENCES, Settings, TopK
from distill.modeling.batches import pad_batch
from distill.modeling.chat import prompt_ids, response_ids
from distill.targets import spans as targets_spans
from distill.targets import store
from distill.targets.alignment import Span, response_spans, shared, spelling
from distill.targets.spans import SpanTargets, span_targets
from distill.targets.store import Rows

ONE = tiny.tokenizer()
TEXT = "What people like is honey 😀."


def settings(loss: str = "forward_kl", **changes: object) -> Settings:
    return Settings(
        **({"loss": loss, "cross_entropy_share": 0.0, "temperature": 1.0, "beta": 0.3, "tail": "bucket"} | changes)
    )


def rows(logits: torch.Tensor, k: int) -> Rows:
    """As `targets.top_k`, in full precision: a teacher at hand."""
    log_probs = logits.double().log_softmax(-1)
    best, ids = log_probs.topk(k, -1)
    return Rows(ids.int(), best, log_probs.scatter(-1, ids, -math.inf).logsumexp(-1))


def case(teacher, student, k: int, text: str = TEXT, seed: int = 0):
    """The teacher's rows, the spans, the targets, the student's logits and labels of one response."""
    generator = torch.Generator().manual_seed(seed)
    sides = [spelling(tokenizer) for tokenizer in (teacher, student)]
    ids = [response_ids(tokenizer, text, True) for tokenizer in (teacher, student)]
    theirs, own = (
        2 * torch.randn(len(part), len(side.tokens), generator=generator) for part, side in zip(ids, sides, strict=True)
    )
    theirs[torch.arange(len(ids[0])), torch.tensor(ids[0])] += 4  # the teacher expects what it says
    stored = rows(theirs, k)
    spans = response_spans(*sides, *ids, True)
    top = span_targets(stored, spans, *ids, shared(*sides, first=True), shared(*sides, first=False))
    return stored, spans, ids, top, own.requires_grad_(), torch.tensor(ids[1])


def outcomes(stored: Rows, span: Span, ids: list[list[int]], logits: torch.Tensor, first: bool, sides):
    """The outcomes of one span of both sides by name, in the open: {name: (teacher, student)}."""
    mates = shared(*sides, first=first).tolist()
    start, end = span.teacher
    held = [dict(zip(*(part.tolist() for part in pair), strict=True)) for pair in
            zip(stored.ids[start:end], stored.log_probs[start:end], strict=True)]  # fmt: skip
    own = logits.log_softmax(-1)[span.student[0] : span.student[1]]
    said, mine = ids[0][start:end], ids[1][span.student[0] : span.student[1]]
    result = {}
    if all(token in row for token, row in zip(said, held, strict=True)):
        theirs = sum(row[token] for token, row in zip(said, held, strict=True))
        result["text"] = (math.exp(theirs), sum(own[place, token] for place, token in enumerate(mine)).exp())
    for token, log_prob in held[0].items():
        if mates[token] >= 0 and token != said[0] and mates[token] != mine[0]:
            result[token] = (math.exp(log_prob), own[0, mates[token]].exp())
    result["rest"] = (1 - sum(p for p, _ in result.values()), 1 - sum(q for _, q in result.values()))
    return result


def plain(stored, spans, ids, logits, weights, wanted: Settings, sides) -> torch.Tensor:
    """The loss by loops over spans and outcomes."""
    text = weights * cross_entropy(logits, torch.tensor(ids[1]), reduction="none")
    result = wanted.cross_entropy_share * text.sum()
    for place, span in enumerate(spans):
        found = outcomes(stored, span, ids, logits, place == 0, sides)
        if set(found) == {"rest"}:
            part = slice(*span.student)
            result = result + (1 - wanted.cross_entropy_share) * text[part].sum()
            continue
        if wanted.tail == "renormalise":
            del found["rest"]
        theirs = torch.tensor([p for p, _ in found.values()]).log().float()
        own = torch.stack([q for _, q in found.values()]).log()
        theirs, own = ((side / wanted.temperature).log_softmax(-1) for side in (theirs, own))
        divergence = DIVERGENCES[wanted.loss](own, theirs, wanted.beta) * wanted.temperature**2
        result = result + (1 - wanted.cross_entropy_share) * weights[span.student[0]] * divergence
    return result


@pytest.mark.parametrize("student", [ONE, OTHER, PIECES], ids=["same", "byte-level", "sentencepiece"])
@pytest.mark.parametrize(
    "wanted",
    [
        settings(),
        settings("reverse_kl", cross_entropy_share=0.3),
        settings("jsd", temperature=2.0),
        settings("skew_kl", tail="renormalise"),
    ],
    ids=lambda wanted: wanted.loss,
)
@pytest.mark.parametrize("k", [1, 5, 60])
def test_it_is_the_sum_over_spans_and_outcomes_and_so_is_its_gradient(student, wanted, k):
    stored, spans, ids, top, logits, labels = case(ONE, student, k)
    weights = torch.full((len(labels),), 0.7)
    sides = [spelling(tokenizer) for tokenizer in (ONE, student)]
    expected = plain(stored, spans, ids, logits, weights, wanted, sides)
    found = cross_tokenizer.total(logits, labels, weights, top, wanted, chunk=4)
    assert found.item() == pytest.approx(expected.item(), rel=1e-4, abs=1e-6)
    one, other = (torch.autograd.grad(value, logits)[0] for value in (found, expected))
    assert torch.allclose(one, other, atol=2e-5)


@pytest.mark.parametrize("loss", DIVERGENCES)
@pytest.mark.parametrize("k", [5, 300])
@pytest.mark.parametrize("temperature", [1.0, 2.0])
def test_with_one_tokenizer_it_is_the_loss_of_tokens(loss, k, temperature):
    stored, _, _, top, logits, labels = case(ONE, ONE, k)
    weights = torch.linspace(0.5, 2, len(labels))
    wanted = settings(loss, temperature=temperature, cross_entropy_share=0.2)
    tokens = TopK(stored.ids.long(), stored.log_probs.float(), stored.tail.float(), torch.ones(len(labels)).bool())
    expected = divergences.total(logits, labels, weights, tokens, wanted, 512)
    found = cross_tokenizer.total(logits, labels, weights, top, wanted)
    assert found.item() == pytest.approx(expected.item(), rel=1e-4, abs=1e-6)
    one, other = (torch.autograd.grad(value, logits)[0] for value in (found, expected))
    assert torch.allclose(one, other, atol=1e-5)


@pytest.mark.parametrize("loss", DIVERGENCES)
def test_it_is_nothing_for_the_same_distribution_and_tokenizer(loss):
    ids = response_ids(ONE, TEXT, True)
    logits = torch.randn(len(ids), len(ONE), generator=torch.Generator().manual_seed(1))
    side = spelling(ONE)
    spans = response_spans(side, side, ids, ids, True)
    mates = shared(side, side, first=False)
    top = span_targets(rows(logits, 50), spans, ids, ids, mates, mates)
    own = logits.clone().requires_grad_()
    value = cross_tokenizer.total(
        own, torch.tensor(ids), torch.ones(len(ids)), top, settings(loss), 1.0, torch.empty(0, dtype=torch.long)
    )
    assert value.item() == pytest.approx(0, abs=1e-4)
    # total variation has a kink there: rounding decides the sign, and |S_j (sign_j - sum sign_k S_k)| / 2 <= S_j
    most = logits.softmax(-1) + 1e-6 if loss == "total_variation" else torch.full_like(logits, 1e-3)
    assert (torch.autograd.grad(value, own)[0].abs() < most).all()


def test_a_span_of_several_tokens_has_the_product_of_their_probabilities():
    # the teacher says one token of 0.5, the student two of 0.8 and 0.5; both know one other token
    stored = Rows(torch.tensor([[0, 1]]), torch.tensor([[0.5, 0.3]]).log(), torch.tensor([0.2]).log())
    mates = torch.tensor([-1, 2, -1])
    top = span_targets(stored, [Span((0, 1), (0, 2))], [0], [0, 1], mates, mates)
    assert top.length.tolist() == [2, 0]
    assert top.known.tolist() == [True, True]
    assert top.text.exp()[0].item() == pytest.approx(0.5)
    assert top.tail.exp()[0].item() == pytest.approx(0.2)
    logits = torch.tensor([[0.8, 0.05, 0.15], [0.25, 0.5, 0.25]]).log()
    value = cross_tokenizer.total(logits, torch.tensor([0, 1]), torch.ones(2), top, settings())
    # the student: its text 0.4, the other token 0.15, the rest 0.05 + 0.8 x 0.5 = 0.45
    expected = 0.5 * math.log(0.5 / 0.4) + 0.3 * math.log(0.3 / 0.15) + 0.2 * math.log(0.2 / 0.45)
    assert value.item() == pytest.approx(expected, rel=1e-5)


def test_a_teachers_several_tokens_are_multiplied_too_and_its_other_continuations_are_in_the_rest():
    stored = Rows(
        torch.tensor([[0, 1], [2, 0]]), torch.tensor([[0.8, 0.1], [0.5, 0.4]]).log(), torch.tensor([0.1, 0.1]).log()
    )
    mates = torch.tensor([-1, 1, -1])
    top = span_targets(stored, [Span((0, 2), (0, 1))], [0, 2], [0], mates, mates)
    assert top.text.exp()[0].item() == pytest.approx(0.4)
    assert top.tail.exp()[0].item() == pytest.approx(0.1 + 0.8 * 0.5)
    logits = torch.tensor([[0.4, 0.1, 0.5]]).log()
    value = cross_tokenizer.total(logits, torch.tensor([0]), torch.ones(1), top, settings())
    assert value.item() == pytest.approx(0, abs=1e-6)


def test_a_teachers_token_that_is_only_the_beginning_of_the_students_span_is_in_the_rest():
    # its token 1 spells as the student's first token does, which the student goes on from to the same text
    stored = Rows(torch.tensor([[0, 1]]), torch.tensor([[0.5, 0.3]]).log(), torch.tensor([0.2]).log())
    mates = torch.tensor([-1, 0])
    top = span_targets(stored, [Span((0, 1), (0, 2))], [0], [0, 1], mates, mates)
    logits = torch.tensor([[0.8, 0.2], [0.5, 0.5]]).log()
    value = cross_tokenizer.total(logits, torch.tensor([0, 1]), torch.ones(2), top, settings())
    assert value.item() == pytest.approx(0.5 * math.log(0.5 / 0.4) + 0.5 * math.log(0.5 / 0.6), rel=1e-5)


def test_a_text_that_the_stored_do_not_hold_is_in_the_rest_of_both():
    stored = Rows(torch.tensor([[1, 2]]), torch.tensor([[0.5, 0.3]]).log(), torch.tensor([0.2]).log())
    mates = torch.tensor([0, 1, 2])
    top = span_targets(stored, [Span((0, 1), (0, 1))], [0], [0], mates, mates)
    assert top.text[0] == -math.inf
    logits = torch.tensor([[0.1, 0.5, 0.3, 0.1]]).log()
    value = cross_tokenizer.total(logits, torch.tensor([0]), torch.ones(1), top, settings())
    assert value.item() == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("student", [OTHER, PIECES])
@pytest.mark.parametrize("k", [1, 8])
def test_every_token_of_every_span_is_learnt_from_the_first_to_the_end_of_turn(student, k):
    _, spans, _, top, logits, labels = case(ONE, student, k)
    value = cross_tokenizer.total(logits, labels, torch.ones(len(labels)), top, settings())
    gradient = torch.autograd.grad(value, logits)[0]
    assert gradient.isfinite().all()
    for span in spans:
        if torch.isfinite(top.text[span.student[0]]) or not top.known[span.student[0]]:
            assert (gradient[span.student[0] : span.student[1]].abs().sum(-1) > 0).all()
    assert (gradient[[0, -1]].abs().sum(-1) > 0).all()
    assert spans[-1].student[1] == len(labels)


def test_tokens_in_no_span_are_learnt_by_cross_entropy():
    _, _, ids, _, logits, labels = case(ONE, OTHER, 8)
    mates = torch.full((len(ONE),), -1)
    top = span_targets(rows(torch.randn(len(ids[0]), len(ONE)), 8), [], *ids, mates, mates)
    weights = torch.linspace(0.5, 1.5, len(labels))
    value = cross_tokenizer.total(logits, labels, weights, top, settings())
    expected = (weights * cross_entropy(logits, labels, reduction="none")).sum()
    assert value.item() == pytest.approx(expected.item(), rel=1e-5)


def test_a_batch_is_the_sum_of_its_samples():
    parts = [case(ONE, OTHER, 8, text, seed) for seed, text in enumerate((TEXT, "honeycomb", "so much"))]
    fields = SpanTargets.__dataclass_fields__
    top = SpanTargets(**{name: torch.cat([getattr(part[3], name) for part in parts]) for name in fields})
    logits, labels = (torch.cat([part[place] for part in parts]) for place in (4, 5))
    whole = cross_tokenizer.total(logits, labels, torch.ones(len(labels)), top, settings())
    each = [cross_tokenizer.total(part[4], part[5], torch.ones(len(part[5])), part[3], settings()) for part in parts]
    assert whole.item() == pytest.approx(sum(each).item(), rel=1e-5)


def test_what_only_one_side_has_is_compared_sorted_as_in_uld():
    unshared = torch.tensor([[0.3, 0.1, 0.0]]).log()
    logits = torch.tensor([[0.05, 0.5, 0.25, 0.2]]).log()
    # the student's tokens 0, 1 and 3 are its own; 1 is the label: sorted 0.2, 0.05, 0
    found = sorted_distance(logits, torch.tensor([1]), unshared, torch.tensor([0, 1, 3]))
    assert found.item() == pytest.approx(0.1 + 0.05, abs=1e-6)
    shorter = sorted_distance(logits, torch.tensor([1]), unshared, torch.tensor([0]))
    assert shorter.item() == pytest.approx(0.25 + 0.1, abs=1e-6)


def test_the_sorted_distance_is_added_to_each_span_with_its_weight():
    _, spans, _, top, logits, labels = case(ONE, OTHER, 30)
    own = targets_spans.pair(ONE, OTHER).unshared_ids()
    texts = set(spelling(ONE).tokens)
    assert {spelling(OTHER).tokens[place] for place in own} == set(spelling(OTHER).tokens) - texts - {b"<|end|>"}
    weights = torch.linspace(0.5, 1.5, len(labels))
    none, half = (
        cross_tokenizer.total(logits, labels, weights, top, settings(), share, own, chunk=3) for share in (0.0, 0.5)
    )
    starts = torch.tensor([span.student[0] for span in spans])
    distance = sorted_distance(logits[starts], labels[starts], top.unshared[starts], own)
    assert (distance > 0).any()
    assert (half - none).item() == pytest.approx(0.5 * (weights[starts] * distance).sum().item(), rel=1e-4)


def test_stored_targets_in_half_precision_serve():
    stored, spans, ids, top, logits, labels = case(ONE, OTHER, 8)
    half = Rows(stored.ids, stored.log_probs.half(), stored.tail.float())
    mates = [shared(spelling(ONE), spelling(OTHER), first) for first in (True, False)]
    low = span_targets(half, spans, *ids, *mates)
    one, other = (cross_tokenizer.total(logits, labels, torch.ones(len(labels)), t, settings()) for t in (top, low))
    assert other.item() == pytest.approx(one.item(), rel=5e-3)


def test_a_student_with_another_tokenizer_learns_the_teachers_answers_and_to_stop():
    prompts = [[{"role": "user", "content": form.format(topic)}] for topic in tiny.TOPICS[:4] for form in tiny.FORMS]
    answers = [answer.format(topic) for topic in tiny.TOPICS[:4] for answer in tiny.ANSWERS]
    teacher, both = tiny.teacher(), targets_spans.pair(ONE, OTHER)
    pairs, tops = [], []
    for messages, answer in zip(prompts, answers, strict=True):
        ids = [response_ids(tokenizer, answer, True) for tokenizer in (ONE, OTHER)]
        prompt = prompt_ids(ONE, messages)
        with torch.no_grad():
            logits = teacher(torch.tensor([prompt + ids[0]])).logits[0, len(prompt) - 1 : -1]
        tops.append(both.targets(store.top_k(logits, 8), *ids, True))
        pairs.append((prompt_ids(OTHER, messages), ids[1]))
    top = SpanTargets(**{n: torch.cat([getattr(t, n) for t in tops]) for n in SpanTargets.__dataclass_fields__})
    assert top.known.all()
    batch = pad_batch(pairs)
    labels = torch.tensor([token for _, response in pairs for token in response])
    network = tiny.model(len(OTHER), layers=2, spread=0.05).train()
    optimizer = torch.optim.Adam(network.parameters(), lr=5e-3)
    for _ in range(150):
        logits = network(input_ids=batch.input_ids, attention_mask=batch.attention_mask).logits[batch.response_mask]
        loss = cross_tokenizer.total(logits, labels, torch.ones(len(labels)), top, settings()) / len(labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    network.eval()
    written = []
    for prompt, response in pairs:
        ids = network.generate(
            torch.tensor([prompt]), do_sample=False, max_new_tokens=60, eos_token_id=OTHER.eos_token_id, pad_token_id=0
        )
        written.append(ids[0, len(prompt) :].tolist() == response)
    assert sum(written) >= 10, f"{sum(written)} of {len(written)} answers are the teacher's, end of turn and all"
