import math

import pytest
import torch
from loss_cases import TEMPERATURES, full_targets, loss_case, settings, top_k_targets
from torch.nn.functional import cross_entropy, log_softmax

from distill.losses.divergences import DIVERGENCES
from distill.losses.logit_loss import CROSS_ENTROPY, LossSettings, logit_loss
from distill.targets.distributions import TopK


def reference_loss(logits, labels, weights, targets: TopK, chosen: LossSettings, tail: bool = True) -> torch.Tensor:
    """The same by autograd, with the whole vocabulary in the open; without `tail` the k are all outcomes."""
    log_probs = log_softmax(logits, -1)
    chosen_tokens = torch.zeros_like(log_probs, dtype=torch.bool).scatter(1, targets.ids, True)
    student = torch.cat(
        [log_probs.gather(1, targets.ids), log_probs.masked_fill(chosen_tokens, -math.inf).logsumexp(-1, True)], 1
    )
    teacher = torch.cat([targets.log_probs, targets.tail[:, None]], 1)
    if not tail:
        student, teacher = student[:, :-1], teacher[:, :-1]
    student, teacher = (log_softmax(side / chosen.temperature, -1) for side in (student, teacher))
    text = cross_entropy(logits, labels, reduction="none")
    divergence = DIVERGENCES[chosen.kind](student, teacher, chosen.beta) * chosen.temperature**2
    return (weights * (chosen.ce_weight * text + (1 - chosen.ce_weight) * divergence)).sum()


def test_cross_entropy_equals_torchs():
    logits, _, labels, weights = loss_case()
    expected = (weights * cross_entropy(logits, labels, reduction="none")).sum()
    assert logit_loss(logits, labels, weights, None, CROSS_ENTROPY).item() == pytest.approx(expected.item(), rel=1e-6)


@pytest.mark.parametrize("loss", DIVERGENCES)
@pytest.mark.parametrize("temperature", TEMPERATURES)
@pytest.mark.parametrize("ce_weight", [0.0, 0.4])
def test_full_targets_equal_autograd_on_all_outcomes(loss, temperature, ce_weight):
    logits, teacher, labels, weights = loss_case()
    chosen = settings(loss, temperature=temperature, ce_weight=ce_weight)
    fast = 0.5 * logit_loss(logits, labels, weights, full_targets(teacher), chosen, chunk=5)
    slow = 0.5 * reference_loss(logits, labels, weights, top_k_targets(teacher, 17), chosen, tail=False)
    assert fast.item() == pytest.approx(slow.item(), rel=1e-5)
    (fast_gradient,), (slow_gradient,) = torch.autograd.grad(fast, logits), torch.autograd.grad(slow, logits)
    assert torch.allclose(fast_gradient, slow_gradient, atol=1e-5)


@pytest.mark.parametrize("loss", DIVERGENCES)
def test_full_targets_with_zero_mass_are_finite(loss):
    logits, teacher, labels, weights = loss_case()
    teacher = teacher.masked_fill(torch.arange(17) < 3, -math.inf).log_softmax(-1)
    value = logit_loss(logits, labels, weights, full_targets(teacher), settings(loss))
    assert 0 < value.item() < math.inf
    assert torch.isfinite(torch.autograd.grad(value, logits)[0]).all()


def test_unknown_full_targets_fall_back_to_cross_entropy():
    logits, teacher, labels, weights = loss_case()
    text = logit_loss(logits, labels, weights, None, CROSS_ENTROPY)
    unknown = logit_loss(logits, labels, weights, full_targets(teacher, known=False), settings("reverse_kl"))
    assert unknown.item() == pytest.approx(text.item(), rel=1e-6)


@pytest.mark.parametrize("loss", DIVERGENCES)
@pytest.mark.parametrize("temperature", TEMPERATURES)
@pytest.mark.parametrize("k", [1, 5, 17])
def test_loss_is_zero_for_equal_models(loss, temperature, k):
    logits, _, labels, weights = loss_case()
    value = logit_loss(
        logits,
        labels,
        weights,
        top_k_targets(logits.detach().log_softmax(-1), k),
        settings(loss, temperature=temperature),
    )
    assert value.item() == pytest.approx(0, abs=2e-4)


@pytest.mark.parametrize("loss", DIVERGENCES)
def test_k_of_the_whole_vocabulary_is_the_full_divergence(loss):
    logits, teacher, labels, weights = loss_case()
    expected = (weights * DIVERGENCES[loss](logits.log_softmax(-1), teacher, 0.3)).sum()
    assert logit_loss(logits, labels, weights, top_k_targets(teacher, 17), settings(loss)).item() == pytest.approx(
        expected.item(), rel=1e-4
    )


@pytest.mark.parametrize("loss", DIVERGENCES)
@pytest.mark.parametrize("temperature", TEMPERATURES)
@pytest.mark.parametrize("ce_weight", [0.0, 0.4])
def test_fast_path_equals_autograd(loss, temperature, ce_weight):
    logits, teacher, labels, weights = loss_case()
    chosen = settings(loss, temperature=temperature, ce_weight=ce_weight)
    fast = logit_loss(logits, labels, weights, top_k_targets(teacher, 4), chosen, chunk=5)
    slow = reference_loss(logits, labels, weights, top_k_targets(teacher, 4), chosen)
    assert fast.item() == pytest.approx(slow.item(), rel=1e-5)
    (fast_gradient,), (slow_gradient,) = torch.autograd.grad(fast, logits), torch.autograd.grad(slow, logits)
    assert torch.allclose(fast_gradient, slow_gradient, atol=1e-5)
    assert fast_gradient.abs().max() > 1e-3


@pytest.mark.parametrize("loss", ["cross_entropy", *DIVERGENCES])
def test_every_loss_has_a_gradient(loss):
    logits, teacher, labels, weights = loss_case()
    (grad,) = torch.autograd.grad(
        logit_loss(logits, labels, weights, top_k_targets(teacher, 4), settings(loss)), logits
    )
    assert (grad.abs().amax(-1) > 1e-5).all()
    assert torch.allclose(grad.sum(-1), torch.zeros(len(grad)), atol=1e-5), "a softmax's gradient adds up to 0"


def test_gradient_predicts_a_small_step():
    logits, teacher, labels, weights = loss_case()
    chosen = settings("forward_kl", temperature=2.0, ce_weight=0.2)
    (grad,) = torch.autograd.grad(logit_loss(logits, labels, weights, top_k_targets(teacher, 4), chosen), logits)
    step = 1e-2 * torch.randn(logits.shape, generator=torch.Generator().manual_seed(5))
    up, down = (
        logit_loss(logits + sign * step, labels, weights, top_k_targets(teacher, 4), chosen).item() for sign in (1, -1)
    )
    assert (up - down) / 2 == pytest.approx((grad * step).sum().item(), rel=1e-2)


@pytest.mark.parametrize("loss", ["cross_entropy", *DIVERGENCES])
def test_chunks_and_batch_splits_change_nothing(loss):
    logits, teacher, labels, weights = loss_case()
    targets = top_k_targets(teacher, 4)
    whole = logit_loss(logits, labels, weights, targets, settings(loss))
    assert logit_loss(logits, labels, weights, targets, settings(loss), chunk=3).item() == pytest.approx(
        whole.item(), rel=1e-5
    )
    parts = sum(
        logit_loss(logits[span], labels[span], weights[span],
              TopK(targets.ids[span], targets.log_probs[span], targets.tail[span], targets.known[span]), settings(loss))
        for span in (slice(0, 7), slice(7, 23))
    )  # fmt: skip
    assert parts.item() == pytest.approx(whole.item(), rel=1e-5)


def test_weights_scale_and_zero_removes():
    logits, teacher, labels, weights = loss_case()
    chosen = settings("forward_kl")
    once = logit_loss(logits, labels, weights, top_k_targets(teacher, 4), chosen)
    assert logit_loss(logits, labels, 3 * weights, top_k_targets(teacher, 4), chosen).item() == pytest.approx(
        3 * once.item(), rel=1e-5
    )
    weights[5:] = 0
    (grad,) = torch.autograd.grad(logit_loss(logits, labels, weights, top_k_targets(teacher, 4), chosen), logits)
    assert (grad[5:] == 0).all()
    assert (grad[:5] != 0).any()


def test_ragged_rows_equal_unpadded_rows():
    logits, teacher, labels, weights = loss_case()
    full = top_k_targets(teacher, 3)
    ids = torch.cat([full.ids, torch.zeros(23, 2, dtype=torch.long)], 1)
    log_probs = torch.cat([full.log_probs, torch.full((23, 2), -math.inf)], 1)
    ragged = TopK(ids, log_probs, full.tail, full.known)
    for loss in DIVERGENCES:
        chosen = settings(loss, temperature=2.0)
        first, second = (logit_loss(logits, labels, weights, targets, chosen) for targets in (full, ragged))
        assert second.item() == pytest.approx(first.item(), rel=1e-5)
        (fast_gradient,), (slow_gradient,) = torch.autograd.grad(first, logits), torch.autograd.grad(second, logits)
        assert torch.isfinite(slow_gradient).all()
        assert torch.allclose(fast_gradient, slow_gradient, atol=1e-6)


@pytest.mark.parametrize("loss", DIVERGENCES)
def test_empty_tails_are_finite_on_both_sides(loss):
    logits, teacher, labels, weights = loss_case()
    targets = top_k_targets(teacher, 17)
    assert torch.isinf(targets.tail).all()
    (grad,) = torch.autograd.grad(logit_loss(logits, labels, weights, targets, settings(loss)), logits)
    assert torch.isfinite(grad).all()
    sure = torch.full((4, 17), -80.0)
    sure[:, 3] = 80.0
    sure.requires_grad_()
    value = logit_loss(sure, labels[:4], weights[:4], top_k_targets(teacher[:4], 2), settings(loss))
    assert math.isfinite(value.item())
    assert torch.isfinite(torch.autograd.grad(value, sure)[0]).all()


def test_only_the_bucket_sees_mass_outside_the_top_k():
    teacher = torch.tensor([[0.45, 0.45, 0.05, 0.05]]).log()
    logits = torch.tensor([[0.045, 0.045, 0.455, 0.455]]).log().requires_grad_()
    label, weight = torch.tensor([0]), torch.ones(1)
    blind = logit_loss(logits, label, weight, top_k_targets(teacher, 2), settings("forward_kl", tail="renormalise"))
    seeing = logit_loss(logits, label, weight, top_k_targets(teacher, 2), settings("forward_kl"))
    assert blind.item() == pytest.approx(0, abs=1e-6)
    assert seeing.item() == pytest.approx(0.9 * math.log(10) + 0.1 * math.log(0.1 / 0.91), rel=1e-4)


@pytest.mark.parametrize("loss", DIVERGENCES)
def test_no_divergence_is_negative(loss):
    for seed in range(20):
        logits, teacher, labels, weights = loss_case(seed=seed)
        for tail in ("bucket", "renormalise"):
            assert (
                logit_loss(logits, labels, weights, top_k_targets(teacher, 3), settings(loss, tail=tail)).item()
                >= -1e-5
            )


def test_unknown_top_k_targets_fall_back_to_cross_entropy():
    logits, teacher, labels, weights = loss_case()
    unknown = logit_loss(logits, labels, weights, top_k_targets(teacher, 4, known=False), settings("forward_kl"))
    text = logit_loss(logits, labels, weights, None, CROSS_ENTROPY)
    assert unknown.item() == pytest.approx(text.item(), rel=1e-6)


def test_gradient_keeps_its_size_across_temperatures():
    logits, teacher, labels, weights = loss_case(vocabulary=6)
    sizes = []
    for temperature in (4.0, 8.0):
        value = logit_loss(
            logits, labels, weights, top_k_targets(teacher, 6), settings("forward_kl", temperature=temperature)
        )
        sizes.append(torch.autograd.grad(value, logits)[0].norm().item())
    assert sizes[1] / sizes[0] == pytest.approx(1, abs=0.15)


def test_half_precision_logits_are_computed_in_fp32():
    logits, teacher, labels, weights = loss_case()
    half = logits.detach().bfloat16().requires_grad_()
    whole = half.detach().float().requires_grad_()
    chosen = settings("forward_kl")
    first, second = (logit_loss(value, labels, weights, top_k_targets(teacher, 4), chosen) for value in (half, whole))
    assert first.item() == pytest.approx(second.item(), rel=1e-6)
    assert torch.autograd.grad(first, half)[0].dtype == torch.bfloat16
