import torch
from loss_cases import full_targets, loss_case, settings, top_k_targets

from distill.losses import chunked
from distill.losses.logit_loss import logit_loss


def test_full_targets_keep_no_fp32_copy_for_backward():
    logits, teacher, labels, weights = loss_case(tokens=64, vocabulary=100)
    half = logits.detach().bfloat16().requires_grad_()
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(lambda value: kept.append(value) or value, lambda value: value):
        logit_loss(half, labels, weights, full_targets(teacher), settings("forward_kl"), chunk=16)
    assert [value.dtype for value in kept if value.numel() >= half.numel()] == [torch.bfloat16]


def test_top_k_targets_keep_no_fp32_copy_for_backward():
    logits, teacher, labels, weights = loss_case(tokens=64, vocabulary=100)
    half = logits.detach().bfloat16().requires_grad_()
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(lambda value: kept.append(value) or value, lambda value: value):
        logit_loss(half, labels, weights, top_k_targets(teacher, 4), settings("forward_kl"))
    large = [value for value in kept if value.numel() >= half.numel()]
    assert all(value.dtype == torch.bfloat16 for value in large)


def test_chunk_fits_into_the_cache(monkeypatch):
    logits, teacher, labels, weights = loss_case()
    seen = []
    real = chunked.TopKLogProbs.apply
    monkeypatch.setattr(chunked.TopKLogProbs, "apply", lambda *given: seen.append(given[-1]) or real(*given))
    for space in (4 * 17 * 6, 1):
        monkeypatch.setattr(chunked, "CACHE_BYTES", space)
        logit_loss(logits, labels, weights, top_k_targets(teacher, 4), settings("forward_kl"))
    assert seen == [6, 1]
