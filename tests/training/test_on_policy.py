"""Batches whose responses the student writes itself."""

from dataclasses import replace

import pytest
import tiny
import torch

from distill.modeling.chat import encode, end_of_turn
from distill.modeling.sampling import Sampling
from distill.students.vocabulary import select_tokens, trim_tokenizer
from distill.targets.tokenizers import to_teacher_ids
from distill.training.dataset import TeacherTargets, collate, encode_samples
from distill.training.on_policy import OnPolicy

ROWS = [
    tiny.weighted(name, "What is honey?", weight)
    for name, weight in (("ants", 2.0), ("north", 0.5), ("the quick brown fox", 1.0))
]


@pytest.fixture(scope="module")
def tokenizer():
    return tiny.tokenizer()


@pytest.fixture(scope="module")
def trimmed(tokenizer):
    """Of the teacher's tokens the bytes and the last ones, so that the two number them differently."""
    return trim_tokenizer(tokenizer, select_tokens(tokenizer, dict.fromkeys(range(300, len(tokenizer)), 1), 330))


@pytest.fixture(scope="module")
def student(trimmed):
    return tiny.model(len(trimmed), layers=2)


@pytest.fixture(scope="module")
def batch(tokenizer, trimmed):
    return collate(encode_samples(ROWS, trimmed, 256, TeacherTargets(tokenizer, None, {})))


@pytest.fixture
def on_policy(tokenizer, trimmed):
    sampling = Sampling(max_tokens=6, temperature=0.0, top_p=1.0, seed=3)
    return OnPolicy(1.0, sampling, end_of_turn(trimmed), to_teacher_ids(tokenizer, trimmed))


def test_the_teacher_scores_the_students_responses(on_policy, student, batch, tokenizer, trimmed):
    batch_of_student = on_policy.batch(student, batch, "0")
    teacher = batch_of_student["targets"]
    labels = iter(batch_of_student["labels"].tolist())
    for position, row in enumerate(ROWS):
        ids = encode(trimmed, row).prompt
        prompt, response = list(ids), []
        while len(response) < 6 and on_policy.end not in response:  # greedy, by plain forward passes
            response.append(int(student(torch.tensor([ids])).logits[0, -1].argmax()))
            ids = [*ids, response[-1]]
        assert batch_of_student["input_ids"][
            position, batch_of_student["attention_mask"][position].bool()
        ].tolist() == [*prompt, *response]
        assert [next(labels) for _ in response] == response
        teacher_row = teacher.batch.input_ids[position, teacher.batch.attention_mask[position].bool()].tolist()
        teacher_prompt = encode(tokenizer, row).prompt
        assert teacher_row[: len(teacher_prompt)] == teacher_prompt
        assert tokenizer.convert_ids_to_tokens(teacher_row[len(teacher_prompt) :]) == trimmed.convert_ids_to_tokens(
            response
        )
        assert (
            batch_of_student["response_mask"][position].sum()
            == teacher.batch.response_mask[position].sum()
            == len(response)
        )
    assert next(labels, None) is None
    assert batch_of_student["labels"].tolist() != on_policy.teacher_ids[batch_of_student["labels"]].tolist(), (
        "both number these tokens alike"
    )
    assert teacher.positions.tolist() == list(range(len(batch_of_student["labels"])))
    assert teacher.known.all()


def test_a_row_keeps_its_weight(on_policy, student, batch):
    batch_of_student = on_policy.batch(student, batch, "0")
    expected = [
        weight
        for row, count in zip(ROWS, batch_of_student["response_mask"].sum(1).tolist(), strict=True)
        for weight in [row["weight"]] * count
    ]
    assert batch_of_student["weights"].tolist() == expected


def test_responses_depend_on_seed_and_step_alone(on_policy, student, batch):
    warm = replace(on_policy, sampling=replace(on_policy.sampling, temperature=1.0))
    first = warm.batch(student, batch, "7")["labels"].tolist()
    torch.manual_seed(9)
    assert warm.batch(student, batch, "7")["labels"].tolist() == first
    assert warm.batch(student, batch, "8")["labels"].tolist() != first
    other = replace(warm, sampling=replace(warm.sampling, seed=4))
    assert other.batch(student, batch, "7")["labels"].tolist() != first


def test_a_fraction_of_steps_has_student_responses(on_policy, student, batch):
    third = replace(on_policy, fraction=0.3, sampling=replace(on_policy.sampling, max_tokens=1))
    num_replaced = sum(third.batch(student, batch, str(step)) is not batch for step in range(200))
    assert num_replaced == pytest.approx(60, abs=20)
    assert replace(on_policy, fraction=0.0).batch(student, batch, "0") is batch


def test_a_model_in_training_mode_stays_so(on_policy, student, batch):
    student.train()
    on_policy.batch(student, batch, "0")
    assert student.training
    student.eval()
