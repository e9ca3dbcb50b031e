"""Batches whose answers the student writes itself."""

from dataclasses import replace

import pytest
import tiny
import torch

from distill.modeling.chat import encode, end_of_turn
from distill.modeling.sampling import Sampling
from distill.students import vocabulary
from distill.targets import tokenizers
from distill.training import dataset, on_policy

ROWS = [
    tiny.weighted(name, "What is honey?", weight)
    for name, weight in (("ants", 2.0), ("north", 0.5), ("the quick brown fox", 1.0))
]


@pytest.fixture(scope="module")
def whole():
    return tiny.tokenizer()


@pytest.fixture(scope="module")
def small(whole):
    """Of the teacher's tokens the bytes and the last ones, so that the two number them differently."""
    return vocabulary.trim(whole, vocabulary.choose(whole, dict.fromkeys(range(300, len(whole)), 1), 330))


@pytest.fixture(scope="module")
def student(small):
    return tiny.model(len(small), layers=2)


@pytest.fixture(scope="module")
def batch(whole, small):
    return dataset.collate(dataset.samples(ROWS, small, 256, whole, None))


@pytest.fixture
def answering(whole, small):
    sampling = Sampling(max_tokens=6, temperature=0.0, top_p=1.0, seed=3)
    return on_policy.Answering(1.0, sampling, end_of_turn(small), tokenizers.teacher_ids(whole, small))


def test_the_answers_are_the_students_and_the_teacher_reads_the_same_tokens(answering, student, batch, whole, small):
    found = answering.batch(student, batch, "0")
    labels = iter(found["labels"].tolist())
    for place, row in enumerate(ROWS):
        ids = encode(small, row).prompt
        prompt, response = list(ids), []
        while len(response) < 6 and answering.end not in response:  # greedy, by plain forward passes
            response.append(int(student(torch.tensor([ids])).logits[0, -1].argmax()))
            ids = [*ids, response[-1]]
        assert found["input_ids"][place, found["attention_mask"][place].bool()].tolist() == [*prompt, *response]
        assert [next(labels) for _ in response] == response
        read = found["teacher_input_ids"][place, found["teacher_attention_mask"][place].bool()].tolist()
        asked = encode(whole, row).prompt
        assert read[: len(asked)] == asked
        assert whole.convert_ids_to_tokens(read[len(asked) :]) == small.convert_ids_to_tokens(response)
        assert found["response_mask"][place].sum() == found["teacher_response_mask"][place].sum() == len(response)
    assert next(labels, None) is None
    assert found["labels"].tolist() != answering.theirs[found["labels"]].tolist(), "both number these tokens alike"
    assert found["teacher_places"].tolist() == list(range(len(found["labels"])))
    assert found["teacher_known"].all()


def test_a_row_keeps_its_weight_whatever_the_length_of_its_answer(answering, student, batch):
    found = answering.batch(student, batch, "0")
    expected = [
        weight
        for row, count in zip(ROWS, found["response_mask"].sum(1).tolist(), strict=True)
        for weight in [row["weight"]] * count
    ]
    assert found["weights"].tolist() == expected


def test_what_is_drawn_depends_on_the_seed_and_the_step_alone(answering, student, batch):
    warm = replace(answering, sampling=replace(answering.sampling, temperature=1.0))
    first = warm.batch(student, batch, "7")["labels"].tolist()
    torch.manual_seed(9)
    assert warm.batch(student, batch, "7")["labels"].tolist() == first
    assert warm.batch(student, batch, "8")["labels"].tolist() != first
    other = replace(warm, sampling=replace(warm.sampling, seed=4))
    assert other.batch(student, batch, "7")["labels"].tolist() != first


def test_the_fraction_of_steps_is_the_students_and_the_others_are_left_alone(answering, student, batch):
    third = replace(answering, fraction=0.3, sampling=replace(answering.sampling, max_tokens=1))
    own = sum(third.batch(student, batch, str(step)) is not batch for step in range(200))
    assert own == pytest.approx(60, abs=20)
    assert replace(answering, fraction=0.0).batch(student, batch, "0") is batch


def test_a_model_in_training_stays_so(answering, student, batch):
    student.train()
    answering.batch(student, batch, "0")
    assert student.training
    student.eval()
