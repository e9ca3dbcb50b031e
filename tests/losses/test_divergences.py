import math

import numpy as np
import pytest
import torch
from loss_cases import loss_case, top_k_targets
from scipy.special import rel_entr
from torch.nn.functional import kl_div, log_softmax

from distill.losses.divergences import DIVERGENCES


def mixed(p, s, beta):
    return beta * p + (1 - beta) * s


# every divergence again, from probabilities: P, S [..., outcomes] and beta to [...]
REFERENCE = {
    "forward_kl": lambda p, s, beta: rel_entr(p, s).sum(-1),
    "reverse_kl": lambda p, s, beta: rel_entr(s, p).sum(-1),
    "jsd": lambda p, s, beta: (beta * rel_entr(p, mixed(p, s, beta)) + (1 - beta) * rel_entr(s, mixed(p, s, beta))).sum(
        -1
    ),
    "skew_kl": lambda p, s, beta: rel_entr(p, mixed(p, s, beta)).sum(-1),
    "skew_reverse_kl": lambda p, s, beta: rel_entr(s, mixed(p, s, beta)).sum(-1),
    "total_variation": lambda p, s, beta: np.maximum(p - s, 0).sum(-1),
}


def test_kls_equal_torchs():
    student, teacher = loss_case()[0].log_softmax(-1), loss_case()[1]
    assert torch.allclose(
        DIVERGENCES["forward_kl"](student, teacher, 0.5),
        kl_div(student, teacher, reduction="none", log_target=True).sum(-1),
    )
    assert torch.allclose(
        DIVERGENCES["reverse_kl"](student, teacher, 0.5),
        kl_div(teacher, student, reduction="none", log_target=True).sum(-1),
        atol=1e-6,
    )


@pytest.mark.parametrize("loss", DIVERGENCES)
@pytest.mark.parametrize("beta", [0.1, 0.5, 0.9])
def test_divergences_equal_their_formulas(loss, beta):
    student, teacher = loss_case(dtype=torch.float64)[0].detach().log_softmax(-1), loss_case(dtype=torch.float64)[1]
    expected = REFERENCE[loss](teacher.exp().numpy(), student.exp().numpy(), beta)
    assert DIVERGENCES[loss](student, teacher, beta).numpy() == pytest.approx(expected, rel=1e-9)


def test_closed_forms_on_two_outcomes():
    teacher, student = torch.tensor([[0.75, 0.25]]).log(), torch.tensor([[0.5, 0.5]]).log()
    forward = 0.75 * math.log(1.5) + 0.25 * math.log(0.5)
    assert DIVERGENCES["forward_kl"](student, teacher, 0.5).item() == pytest.approx(forward, abs=1e-6)
    assert DIVERGENCES["reverse_kl"](student, teacher, 0.5).item() == pytest.approx(
        0.5 * math.log(0.5 / 0.75) + 0.5 * math.log(2)
    )
    middle = 0.5 * (0.75 * math.log(0.75 / 0.625) + 0.25 * math.log(0.25 / 0.375)) + 0.5 * (
        0.5 * math.log(0.5 / 0.625) + 0.5 * math.log(0.5 / 0.375)
    )
    assert DIVERGENCES["jsd"](student, teacher, 0.5).item() == pytest.approx(middle, abs=1e-6)
    skewed = 0.75 * math.log(0.75 / 0.575) + 0.25 * math.log(0.25 / 0.425)
    assert DIVERGENCES["skew_kl"](student, teacher, 0.3).item() == pytest.approx(skewed, abs=1e-6)
    reverse = 0.5 * math.log(0.5 / 0.575) + 0.5 * math.log(0.5 / 0.425)
    assert DIVERGENCES["skew_reverse_kl"](student, teacher, 0.3).item() == pytest.approx(reverse, rel=1e-5)
    assert DIVERGENCES["total_variation"](student, teacher, 0.3).item() == pytest.approx(0.25)


def test_jsd_is_symmetric_at_half_and_vanishes_at_the_ends():
    student, teacher = loss_case()[0].log_softmax(-1), loss_case()[1]
    assert torch.allclose(
        DIVERGENCES["jsd"](student, teacher, 0.5), DIVERGENCES["jsd"](teacher, student, 0.5), atol=1e-6
    )
    small = DIVERGENCES["jsd"](student, teacher, 0.01).mean() / DIVERGENCES["forward_kl"](student, teacher, 0.01).mean()
    assert 0.001 < small < 0.03


def test_tempering_before_coarse_graining_is_not_zero():
    logits = loss_case()[0].detach()
    targets = top_k_targets(logits.log_softmax(-1), 3)
    hot = (logits / 2).log_softmax(-1)
    student = torch.cat([hot.gather(1, targets.ids), hot.scatter(1, targets.ids, -math.inf).logsumexp(-1, True)], 1)
    teacher = log_softmax(torch.cat([targets.log_probs, targets.tail[:, None]], 1) / 2, -1)
    assert DIVERGENCES["forward_kl"](student, teacher, 0.5).mean() > 0.05
