import math

import pytest
import tiny
import torch

from distill.core.errors import UserError
from distill.modeling.chat import encode
from distill.students.vocabulary import select_tokens, trim_tokenizer
from distill.training.validation import Validation, perplexity

TOKENIZER = tiny.tokenizer()
TRIMMED = trim_tokenizer(TOKENIZER, select_tokens(TOKENIZER, {}, 290))
ROWS = [
    tiny.weighted("ants", "What is honey?", 1.0) | {"logprobs": [-0.5] * 5},
    tiny.weighted("jazz", "people like jazz", 1.0) | {"logprobs": [-0.1] * 4},
]


@torch.no_grad()
def nats(model, rows, tokenizer) -> float:
    """The negative log-likelihood of the responses by plain forward passes."""
    total = 0.0
    for row in rows:
        example = encode(tokenizer, row)
        log_probs = model(torch.tensor([[*example.prompt, *example.response]])).logits[0].log_softmax(-1)
        for position, token in enumerate(example.response, start=len(example.prompt) - 1):
            total -= float(log_probs[position, token])
    return total


def test_the_unit_is_a_teacher_token_where_all_rows_have_log_probs():
    validation = Validation.of(ROWS, TRIMMED, None, torch.float32)
    assert (validation.unit, validation.count) == ("teacher token", 9)
    model = tiny.model(len(TRIMMED), layers=1, spread=0.05)
    assert validation.loss(model) == pytest.approx(nats(model, ROWS, TRIMMED) / 9, rel=1e-4)


@pytest.mark.parametrize("missing", [None, []])
def test_the_unit_is_a_student_token_where_a_row_lacks_log_probs(missing):
    rows = [ROWS[0], ROWS[1] | {"logprobs": missing}]
    validation = Validation.of(rows, TRIMMED, None, torch.float32)
    count = sum(len(encode(TRIMMED, row).response) for row in rows)
    assert (validation.unit, validation.count) == ("student token", count)
    model = tiny.model(len(TRIMMED), layers=1, spread=0.05)
    assert validation.loss(model) == pytest.approx(nats(model, rows, TRIMMED) / count, rel=1e-4)


def test_usage_counts_where_there_are_no_log_probs():
    usage = {"prompt_tokens": 9, "completion_tokens": 4}
    rows = [ROWS[0], ROWS[1] | {"logprobs": None, "usage": usage}]
    validation = Validation.of(rows, TRIMMED, None, torch.float32)
    assert (validation.unit, validation.count) == ("teacher token", 9)


@pytest.mark.parametrize("tokens", [0, 900])
def test_usage_without_tokens_or_of_hidden_reasoning_counts_nothing(tokens):
    rows = [ROWS[0], ROWS[1] | {"logprobs": None, "usage": {"prompt_tokens": 9, "completion_tokens": tokens}}]
    assert Validation.of(rows, TRIMMED, None, torch.float32).unit == "student token"


def test_the_unit_is_a_row_with_class_labels():
    labels = ["good", "bad"]
    rows = [tiny.weighted("ants", label, 1.0) | {"logprobs": None} for label in ("good", "bad", "good")]
    validation = Validation.of(rows, TOKENIZER, labels, torch.float32)
    assert (validation.unit, validation.count) == ("row", 3)
    model = tiny.model(len(TOKENIZER), layers=1, spread=0.05)
    scores = torch.tensor([-nats(model, [rows[0] | {"response": label}], TOKENIZER) for label in labels])
    good, bad = (-scores.log_softmax(0)).tolist()
    assert validation.loss(model) == pytest.approx((good + bad + good) / 3, rel=1e-4)


def test_rows_without_log_probs_never_overflow():
    """A loss for each word, of a text without spaces, once was thousands of nats, and its exp an OverflowError."""
    rows = [tiny.weighted("ants", "ants" * 200, 1.0) | {"logprobs": None}]
    validation = Validation.of(rows, TOKENIZER, None, torch.float32)
    loss = validation.loss(tiny.model(len(TOKENIZER), layers=1))
    assert validation.count > 100
    assert math.isfinite(perplexity(loss))
    assert math.isfinite(perplexity(loss * validation.count))
    assert math.isfinite(perplexity(1e6))
    assert perplexity(2.0) == pytest.approx(math.exp(2))


def test_a_loss_that_is_not_finite_is_refused():
    model = tiny.model(len(TOKENIZER), layers=1)
    with torch.no_grad():
        model.model.norm.weight.fill_(math.nan)
    with pytest.raises(UserError, match="validation loss must be finite, got nan"):
        Validation.of(ROWS, TOKENIZER, None, torch.float32).loss(model)
