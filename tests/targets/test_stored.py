import pytest
import torch

from distill.losses.logit_loss import LossSettings, logit_loss
from distill.targets.distributions import TopK
from distill.targets.stored import StoredDraws, StoredTopK, draw, merge_duplicates, top_k


def test_top_k_and_tail_hold_all_the_mass():
    logits = torch.tensor([[0.0, 1.0, 2.0, 3.0]])
    stored = top_k(logits, 2)
    assert stored.ids.tolist() == [[3, 2]]
    probs = logits.softmax(-1)[0].tolist()
    assert stored.log_probs.float().exp()[0].tolist() == pytest.approx([probs[3], probs[2]], rel=1e-3)
    assert stored.tail.exp().item() == pytest.approx(probs[0] + probs[1], rel=1e-3)


def test_k_of_the_whole_vocabulary_leaves_no_tail():
    stored = top_k(torch.randn(5, 4), 9)
    assert stored.ids.shape == (5, 4)
    assert (stored.tail.exp() < 1e-5).all()


def test_draws_estimate_the_distribution():
    logits = torch.tensor([[3.0, 1.0, 0.0, -1.0, 2.0], [0.0, 0.0, 0.0, 9.0, 0.0]])
    mean = torch.zeros(2, 5)
    for seed in range(400):
        drawn = draw(logits, 50, seed)
        assert drawn.counts.sum() == 2 * 50
        assert drawn.num_distinct.sum() == len(drawn.ids)
        rows = drawn.frequencies(50, 5)
        mean.scatter_add_(1, rows.ids.long(), rows.log_probs.exp() / 400)
        assert torch.isinf(rows.tail).all()
    assert torch.allclose(mean, logits.softmax(-1), atol=0.015)  # four standard errors of the most uncertain share
    assert torch.equal(draw(logits, 50, 3).counts, draw(logits, 50, 3).counts)
    assert draw(logits, 255, 0).counts.max() == 255, "a count fits into its byte"


def test_draws_give_an_unbiased_gradient():
    generator = torch.Generator().manual_seed(2)
    logits = torch.randn(1, 12, generator=generator).requires_grad_()
    teacher = torch.randn(1, 12, generator=generator)
    label, weight, known = torch.tensor([0]), torch.ones(1), torch.ones(1, dtype=torch.bool)

    def gradient(rows: StoredTopK, tail: str) -> torch.Tensor:
        top = TopK(rows.ids.long(), rows.log_probs.float(), rows.tail, known)
        value = logit_loss(logits, label, weight, top, LossSettings("forward_kl", ce_weight=0.0, tail=tail))
        return torch.autograd.grad(value, logits)[0]

    expected = logits.detach().softmax(-1) - teacher.softmax(-1)
    draws = [gradient(draw(teacher, 20, seed).frequencies(20, 12), "bucket") for seed in range(600)]
    assert torch.allclose(torch.stack(draws).mean(0), expected, atol=0.02)
    assert not torch.allclose(gradient(top_k(teacher, 4), "renormalise"), expected, atol=0.05)


def test_unused_columns_of_draws_have_no_mass():
    rows = StoredDraws(torch.tensor([7, 2, 9]).int(), torch.tensor([4, 1, 3]).to(torch.uint8),
                                        torch.tensor([1, 2]).to(torch.uint8)).frequencies(4, 3)  # fmt: skip
    assert rows.ids.tolist() == [[7, 7, 7], [2, 9, 2]]
    assert rows.log_probs.exp().tolist() == [[1, 0, 0], [0.25, 0.75, 0]]


def test_equal_ids_add_up():
    ids, probs = merge_duplicates(torch.tensor([[7, 3, 7, 1]]), torch.tensor([[0.4, 0.3, 0.2, 0.05]]))
    merged = {token: round(mass, 4) for token, mass in zip(ids[0].tolist(), probs[0].tolist(), strict=True) if mass}
    assert merged == {1: 0.05, 3: 0.3, 7: 0.6}
