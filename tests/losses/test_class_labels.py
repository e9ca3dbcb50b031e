"""The loss over class labels, by hand and by scipy."""

import math

import pytest
import torch
from loss_cases import settings
from scipy.special import rel_entr
from torch.nn.functional import cross_entropy

from distill.losses.class_labels import class_label_loss, sequence_log_probs
from distill.losses.logit_loss import CROSS_ENTROPY

STUDENT = torch.tensor([[-1.0, -3.0, -2.0], [-0.5, -0.25, -4.0]])
TEACHER = torch.tensor([[0.7, 0.2, 0.1], [0.1, 0.6, 0.3]]).log()
LABEL, WEIGHTS = torch.tensor([0, 1]), torch.tensor([2.0, 0.5])


def test_the_tokens_of_a_label_add_up():
    tokens = torch.tensor([-1.0, -2.0, -4.0, -8.0, -16.0, -32.0])
    assert sequence_log_probs(tokens, [1, 2]).tolist() == [[-1.0, -6.0], [-8.0, -48.0]]
    assert sequence_log_probs(tokens, [3]).tolist() == [[-7.0], [-56.0]]


def test_cross_entropy_is_on_the_teachers_label_over_the_set():
    expected = (WEIGHTS * cross_entropy(STUDENT, LABEL, reduction="none")).sum()
    assert float(class_label_loss(STUDENT, TEACHER, LABEL, WEIGHTS, CROSS_ENTROPY)) == pytest.approx(float(expected))


def test_forward_kl_is_that_of_scipy():
    divergences = rel_entr(TEACHER.exp().numpy(), STUDENT.softmax(-1).numpy()).sum(-1)
    expected = 2.0 * divergences[0] + 0.5 * divergences[1]
    loss = class_label_loss(STUDENT, TEACHER, LABEL, WEIGHTS, settings("forward_kl"))
    assert float(loss) == pytest.approx(expected, rel=1e-5)
    mixed = class_label_loss(STUDENT, TEACHER, LABEL, WEIGHTS, settings("forward_kl", ce_weight=0.25))
    text = float(class_label_loss(STUDENT, TEACHER, LABEL, WEIGHTS, CROSS_ENTROPY))
    assert float(mixed) == pytest.approx(0.25 * text + 0.75 * expected, rel=1e-5)


def test_a_student_like_its_teacher_has_no_divergence():
    student = (TEACHER + 3.0).requires_grad_()  # likelihoods of whole sequences need not add up to 1
    loss = class_label_loss(student, TEACHER, LABEL, WEIGHTS, settings("forward_kl"))
    assert loss.item() == pytest.approx(0.0, abs=1e-6)
    assert torch.autograd.grad(loss, student)[0].abs().max() < 1e-6


def test_a_label_that_the_teacher_excludes_counts_nothing():
    teacher = torch.tensor([[0.5, 0.5, 0.0]]).log()
    loss = class_label_loss(
        torch.tensor([[0.0, 0.0, -math.inf]]), teacher, LABEL[:1], WEIGHTS[:1], settings("total_variation")
    )
    assert float(loss) == pytest.approx(0.0, abs=1e-6)
