import math

import pytest
import tiny
import torch
from loss_cases import settings
from other_tokenizers import OTHER, PIECES
from torch.nn.functional import cross_entropy

from distill.losses.cross_tokenizer import span_loss
from distill.losses.divergences import DIVERGENCES
from distill.losses.logit_loss import LossSettings, logit_loss
from distill.modeling.batches import pad_batch
from distill.modeling.chat import prompt_ids, response_ids
from distill.targets.alignment import Span, response_spans, shared_tokens, token_bytes
from distill.targets.distributions import TopK
from distill.targets.spans import Response, SpanTargets, span_targets, tokenizer_pair
from distill.targets.stored import StoredTopK, top_k

TEACHER = tiny.tokenizer()
TEXT = "What people like is honey 😀."


def stored_rows(logits: torch.Tensor, k: int) -> StoredTopK:
    """As `targets.top_k`, in full precision: a teacher at hand."""
    log_probs = logits.double().log_softmax(-1)
    best, ids = log_probs.topk(k, -1)
    return StoredTopK(ids.int(), best, log_probs.scatter(-1, ids, -math.inf).logsumexp(-1))


def span_case(teacher, student, k: int, text: str = TEXT, seed: int = 0):
    """The teacher's rows, the spans, the targets, the student's logits and labels of one response."""
    generator = torch.Generator().manual_seed(seed)
    sides = [token_bytes(tokenizer) for tokenizer in (teacher, student)]
    ids = [response_ids(tokenizer, text, True) for tokenizer in (teacher, student)]
    teacher_values, student_values = (
        2 * torch.randn(len(part), len(side.tokens), generator=generator) for part, side in zip(ids, sides, strict=True)
    )
    teacher_values[torch.arange(len(ids[0])), torch.tensor(ids[0])] += 4  # the teacher expects what it says
    stored = stored_rows(teacher_values, k)
    spans = response_spans(*sides, *ids, True)
    targets = span_targets(
        stored, spans, Response(*ids, True), shared_tokens(*sides, first=True), shared_tokens(*sides, first=False)
    )
    return stored, spans, ids, targets, student_values.requires_grad_(), torch.tensor(ids[1])


def outcomes(stored: StoredTopK, span: Span, ids: list[list[int]], logits: torch.Tensor, first: bool, sides):
    """The outcomes of one span of both sides by name, in the open: {name: (teacher, student)}."""
    student_ids = shared_tokens(*sides, first=first).tolist()
    start, end = span.teacher
    stored_log_probs = [dict(zip(*(part.tolist() for part in pair), strict=True)) for pair in
            zip(stored.ids[start:end], stored.log_probs[start:end], strict=True)]  # fmt: skip
    student_values = logits.log_softmax(-1)[span.student[0] : span.student[1]]
    teacher_text, student_text = ids[0][start:end], ids[1][span.student[0] : span.student[1]]
    result = {}
    if all(token in row for token, row in zip(teacher_text, stored_log_probs, strict=True)):
        teacher_values = sum(row[token] for token, row in zip(teacher_text, stored_log_probs, strict=True))
        result["text"] = (
            math.exp(teacher_values),
            sum(student_values[position, token] for position, token in enumerate(student_text)).exp(),
        )
    for token, log_prob in stored_log_probs[0].items():
        if student_ids[token] >= 0 and token != teacher_text[0] and student_ids[token] != student_text[0]:
            result[token] = (math.exp(log_prob), student_values[0, student_ids[token]].exp())
    result["rest"] = (1 - sum(p for p, _ in result.values()), 1 - sum(q for _, q in result.values()))
    return result


def reference_loss(stored, spans, ids, logits, weights, chosen: LossSettings, sides) -> torch.Tensor:
    """The loss by loops over spans and outcomes."""
    text = weights * cross_entropy(logits, torch.tensor(ids[1]), reduction="none")
    result = chosen.ce_weight * text.sum()
    for position, span in enumerate(spans):
        by_name = outcomes(stored, span, ids, logits, position == 0, sides)
        if set(by_name) == {"rest"}:
            part = slice(*span.student)
            result = result + (1 - chosen.ce_weight) * text[part].sum()
            continue
        if chosen.tail == "renormalise":
            del by_name["rest"]
        teacher_values = torch.tensor([p for p, _ in by_name.values()]).log().float()
        student_values = torch.stack([q for _, q in by_name.values()]).log()
        teacher_values, student_values = (
            (side / chosen.temperature).log_softmax(-1) for side in (teacher_values, student_values)
        )
        divergence = DIVERGENCES[chosen.kind](student_values, teacher_values, chosen.beta) * chosen.temperature**2
        result = result + (1 - chosen.ce_weight) * weights[span.student[0]] * divergence
    return result


@pytest.mark.parametrize("student", [TEACHER, OTHER, PIECES], ids=["same", "byte-level", "sentencepiece"])
@pytest.mark.parametrize(
    "chosen",
    [
        settings(),
        settings("reverse_kl", ce_weight=0.3),
        settings("jsd", temperature=2.0),
        settings("skew_kl", tail="renormalise"),
    ],
    ids=lambda chosen: chosen.kind,
)
@pytest.mark.parametrize("k", [1, 5, 60])
def test_loss_sums_over_spans_and_outcomes(student, chosen, k):
    stored, spans, ids, targets, logits, labels = span_case(TEACHER, student, k)
    weights = torch.full((len(labels),), 0.7)
    sides = [token_bytes(tokenizer) for tokenizer in (TEACHER, student)]
    expected = reference_loss(stored, spans, ids, logits, weights, chosen, sides)
    actual = span_loss(logits, labels, weights, targets, chosen, chunk=4)
    assert actual.item() == pytest.approx(expected.item(), rel=1e-4, abs=1e-6)
    first, second = (torch.autograd.grad(value, logits)[0] for value in (actual, expected))
    assert torch.allclose(first, second, atol=2e-5)


@pytest.mark.parametrize("loss", DIVERGENCES)
@pytest.mark.parametrize("k", [5, 300])
@pytest.mark.parametrize("temperature", [1.0, 2.0])
def test_one_tokenizer_gives_the_loss_of_tokens(loss, k, temperature):
    stored, _, _, targets, logits, labels = span_case(TEACHER, TEACHER, k)
    weights = torch.linspace(0.5, 2, len(labels))
    chosen = settings(loss, temperature=temperature, ce_weight=0.2)
    tokens = TopK(stored.ids.long(), stored.log_probs.float(), stored.tail.float(), torch.ones(len(labels)).bool())
    expected = logit_loss(logits, labels, weights, tokens, chosen, 512)
    actual = span_loss(logits, labels, weights, targets, chosen)
    assert actual.item() == pytest.approx(expected.item(), rel=1e-4, abs=1e-6)
    first, second = (torch.autograd.grad(value, logits)[0] for value in (actual, expected))
    assert torch.allclose(first, second, atol=1e-5)


@pytest.mark.parametrize("loss", DIVERGENCES)
def test_loss_is_zero_for_equal_models(loss):
    ids = response_ids(TEACHER, TEXT, True)
    logits = torch.randn(len(ids), len(TEACHER), generator=torch.Generator().manual_seed(1))
    side = token_bytes(TEACHER)
    spans = response_spans(side, side, ids, ids, True)
    student_ids = shared_tokens(side, side, first=False)
    targets = span_targets(stored_rows(logits, 50), spans, Response(ids, ids, True), student_ids, student_ids)
    student_values = logits.clone().requires_grad_()
    value = span_loss(student_values, torch.tensor(ids), torch.ones(len(ids)), targets, settings(loss))
    assert value.item() == pytest.approx(0, abs=1e-4)
    # total variation has a kink there: rounding decides the sign, and |S_j (sign_j - sum sign_k S_k)| / 2 <= S_j
    most = logits.softmax(-1) + 1e-6 if loss == "total_variation" else torch.full_like(logits, 1e-3)
    assert (torch.autograd.grad(value, student_values)[0].abs() < most).all()


def test_student_tokens_of_a_span_multiply():
    # the teacher says one token of 0.5, the student two of 0.8 and 0.5; both know one other token
    stored = StoredTopK(torch.tensor([[0, 1]]), torch.tensor([[0.5, 0.3]]).log(), torch.tensor([0.2]).log())
    student_ids = torch.tensor([-1, 2, -1])
    targets = span_targets(stored, [Span((0, 1), (0, 2))], Response([0], [0, 1], False), student_ids, student_ids)
    assert targets.length.tolist() == [2, 0]
    assert targets.known.tolist() == [True, True]
    assert targets.text.exp()[0].item() == pytest.approx(0.5)
    assert targets.tail.exp()[0].item() == pytest.approx(0.2)
    logits = torch.tensor([[0.8, 0.05, 0.15], [0.25, 0.5, 0.25]]).log()
    value = span_loss(logits, torch.tensor([0, 1]), torch.ones(2), targets, settings())
    # the student: its text 0.4, the other token 0.15, the rest 0.05 + 0.8 x 0.5 = 0.45
    expected = 0.5 * math.log(0.5 / 0.4) + 0.3 * math.log(0.3 / 0.15) + 0.2 * math.log(0.2 / 0.45)
    assert value.item() == pytest.approx(expected, rel=1e-5)


def test_teacher_tokens_of_a_span_multiply():
    stored = StoredTopK(
        torch.tensor([[0, 1], [2, 0]]), torch.tensor([[0.8, 0.1], [0.5, 0.4]]).log(), torch.tensor([0.1, 0.1]).log()
    )
    student_ids = torch.tensor([-1, 1, -1])
    targets = span_targets(stored, [Span((0, 2), (0, 1))], Response([0, 2], [0], False), student_ids, student_ids)
    assert targets.text.exp()[0].item() == pytest.approx(0.4)
    assert targets.tail.exp()[0].item() == pytest.approx(0.1 + 0.8 * 0.5)
    logits = torch.tensor([[0.4, 0.1, 0.5]]).log()
    value = span_loss(logits, torch.tensor([0]), torch.ones(1), targets, settings())
    assert value.item() == pytest.approx(0, abs=1e-6)


def test_the_first_token_of_a_students_span_is_in_the_rest():
    # its token 1 spells as the student's first token does, which the student goes on from to the same text
    stored = StoredTopK(torch.tensor([[0, 1]]), torch.tensor([[0.5, 0.3]]).log(), torch.tensor([0.2]).log())
    student_ids = torch.tensor([-1, 0])
    targets = span_targets(stored, [Span((0, 1), (0, 2))], Response([0], [0, 1], False), student_ids, student_ids)
    logits = torch.tensor([[0.8, 0.2], [0.5, 0.5]]).log()
    value = span_loss(logits, torch.tensor([0, 1]), torch.ones(2), targets, settings())
    assert value.item() == pytest.approx(0.5 * math.log(0.5 / 0.4) + 0.5 * math.log(0.5 / 0.6), rel=1e-5)


def test_a_text_that_is_not_stored_is_in_both_rests():
    stored = StoredTopK(torch.tensor([[1, 2]]), torch.tensor([[0.5, 0.3]]).log(), torch.tensor([0.2]).log())
    student_ids = torch.tensor([0, 1, 2])
    targets = span_targets(stored, [Span((0, 1), (0, 1))], Response([0], [0], False), student_ids, student_ids)
    assert targets.text[0] == -math.inf
    logits = torch.tensor([[0.1, 0.5, 0.3, 0.1]]).log()
    value = span_loss(logits, torch.tensor([0]), torch.ones(1), targets, settings())
    assert value.item() == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("student", [OTHER, PIECES])
@pytest.mark.parametrize("k", [1, 8])
def test_every_token_of_every_span_is_learnt(student, k):
    _, spans, _, targets, logits, labels = span_case(TEACHER, student, k)
    value = span_loss(logits, labels, torch.ones(len(labels)), targets, settings())
    gradient = torch.autograd.grad(value, logits)[0]
    assert gradient.isfinite().all()
    for span in spans:
        if torch.isfinite(targets.text[span.student[0]]) or not targets.known[span.student[0]]:
            assert (gradient[span.student[0] : span.student[1]].abs().sum(-1) > 0).all()
    assert (gradient[[0, -1]].abs().sum(-1) > 0).all()
    assert spans[-1].student[1] == len(labels)


def test_tokens_without_a_span_use_cross_entropy():
    _, _, ids, _, logits, labels = span_case(TEACHER, OTHER, 8)
    student_ids = torch.full((len(TEACHER),), -1)
    targets = span_targets(
        stored_rows(torch.randn(len(ids[0]), len(TEACHER)), 8), [], Response(*ids, True), student_ids, student_ids
    )
    weights = torch.linspace(0.5, 1.5, len(labels))
    value = span_loss(logits, labels, weights, targets, settings())
    expected = (weights * cross_entropy(logits, labels, reduction="none")).sum()
    assert value.item() == pytest.approx(expected.item(), rel=1e-5)


def test_a_batch_is_the_sum_of_its_samples():
    parts = [span_case(TEACHER, OTHER, 8, text, seed) for seed, text in enumerate((TEXT, "honeycomb", "so much"))]
    fields = SpanTargets.__dataclass_fields__
    targets = SpanTargets(**{name: torch.cat([getattr(part[3], name) for part in parts]) for name in fields})
    logits, labels = (torch.cat([part[position] for part in parts]) for position in (4, 5))
    whole = span_loss(logits, labels, torch.ones(len(labels)), targets, settings())
    each = [span_loss(part[4], part[5], torch.ones(len(part[5])), part[3], settings()) for part in parts]
    assert whole.item() == pytest.approx(sum(each).item(), rel=1e-5)


def test_half_precision_targets_give_the_same_loss():
    stored, spans, ids, targets, logits, labels = span_case(TEACHER, OTHER, 8)
    half = StoredTopK(stored.ids, stored.log_probs.half(), stored.tail.float())
    student_ids = [shared_tokens(token_bytes(TEACHER), token_bytes(OTHER), first) for first in (True, False)]
    low = span_targets(half, spans, Response(*ids, True), *student_ids)
    first, second = (
        span_loss(logits, labels, torch.ones(len(labels)), chosen_targets, settings())
        for chosen_targets in (targets, low)
    )
    assert second.item() == pytest.approx(first.item(), rel=5e-3)


def test_another_tokenizer_learns_responses_and_to_stop():
    prompts = [[{"role": "user", "content": form.format(topic)}] for topic in tiny.TOPICS[:4] for form in tiny.FORMS]
    answers = [answer.format(topic) for topic in tiny.TOPICS[:4] for answer in tiny.ANSWERS]
    teacher, both = tiny.teacher(), tokenizer_pair(TEACHER, OTHER)
    pairs, all_targets = [], []
    for messages, answer in zip(prompts, answers, strict=True):
        ids = [response_ids(tokenizer, answer, True) for tokenizer in (TEACHER, OTHER)]
        prompt = prompt_ids(TEACHER, messages)
        with torch.no_grad():
            logits = teacher(torch.tensor([prompt + ids[0]])).logits[0, len(prompt) - 1 : -1]
        all_targets.append(both.span_targets(top_k(logits, 8), Response(*ids, True)))
        pairs.append((prompt_ids(OTHER, messages), ids[1]))
    targets = SpanTargets(
        **{n: torch.cat([getattr(record, n) for record in all_targets]) for n in SpanTargets.__dataclass_fields__}
    )
    assert targets.known.all()
    batch = pad_batch(pairs)
    labels = torch.tensor([token for _, response in pairs for token in response])
    network = tiny.model(len(OTHER), layers=2, spread=0.05).train()
    optimizer = torch.optim.Adam(network.parameters(), lr=5e-3)
    for _ in range(150):
        logits = network(input_ids=batch.input_ids, attention_mask=batch.attention_mask).logits[batch.response_mask]
        loss = span_loss(logits, labels, torch.ones(len(labels)), targets, settings()) / len(labels)
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
