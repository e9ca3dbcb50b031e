import json
from dataclasses import replace

import pytest
import tiny
import torch
from tokenizers.pre_tokenizers import ByteLevel

from distill.core.errors import UserError
from distill.losses.divergences import Settings, TopK, total
from distill.params.loading import check_params
from distill.targets import store

SOURCE = store.Source("t", "m", None, None, "tok", "tmpl", "data", "float32", "stored", 3)


def rows(tokens: int, seed: int = 0) -> store.Rows:
    torch.manual_seed(seed)
    return store.top_k(torch.randn(tokens, 11), 3)


def same(one: store.Rows, other: store.Rows) -> bool:
    return all(torch.equal(getattr(one, name), getattr(other, name)) for name in ("ids", "log_probs", "tail"))


def test_the_k_best_and_the_tail_hold_all_the_mass():
    logits = torch.tensor([[0.0, 1.0, 2.0, 3.0]])
    stored = store.top_k(logits, 2)
    assert stored.ids.tolist() == [[3, 2]]
    probs = logits.softmax(-1)[0].tolist()
    assert stored.log_probs.float().exp()[0].tolist() == pytest.approx([probs[3], probs[2]], rel=1e-3)
    assert stored.tail.exp().item() == pytest.approx(probs[0] + probs[1], rel=1e-3)


def test_k_of_the_whole_vocabulary_leaves_no_tail():
    stored = store.top_k(torch.randn(5, 4), 9)
    assert stored.ids.shape == (5, 4)
    assert (stored.tail.exp() < 1e-5).all()


def test_what_is_written_is_read_by_sample_id_over_several_shards(tmp_path, monkeypatch):
    monkeypatch.setattr(store, "SHARD_TOKENS", 6)
    samples = {f"s{number}": rows(4, number) for number in range(5)}
    store.write(tmp_path, SOURCE, samples.items())
    assert len(list(tmp_path.glob("*.safetensors"))) == 3
    found = dict(store.read(tmp_path, SOURCE))
    assert list(found) == list(samples)
    assert all(same(found[name], samples[name]) for name in samples)


def test_the_same_rows_give_the_same_bytes(tmp_path):
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        store.write(tmp_path / name, SOURCE, [("a", rows(4))])
    for file in (tmp_path / "one").iterdir():
        assert file.read_bytes() == (tmp_path / "two" / file.name).read_bytes()


@pytest.mark.parametrize("key", ["tokenizer", "template", "data", "model", "sha256", "dtype", "kind", "size"])
def test_targets_of_anything_else_are_refused_by_name(tmp_path, key):
    store.write(tmp_path, SOURCE, [("a", rows(2))])
    with pytest.raises(UserError, match=f"{key}: .* \\(expected other\\)"):
        list(store.read(tmp_path, replace(SOURCE, **{key: "other"})))


def test_they_are_of_the_very_texts_of_the_rows_and_of_what_the_tokenizer_does_and_not_of_its_size():
    params = check_params(tiny.params())
    rows = [tiny.weighted(name, "What is honey?", 1.0) for name in ("ants", "jazz")]

    def changed(rows=rows, tokenizer=None) -> set[str]:
        """The fields that differ from those of the two rows by the tiny tokenizer."""
        asked = params.teachers[0], tokenizer or tiny.tokenizer(), rows, "float32", params.weight.targets
        return {name for name, value in vars(store.source(*asked)).items() if value != getattr(usual, name)}

    usual = store.source(params.teachers[0], tiny.tokenizer(), rows, "float32", params.weight.targets)
    assert changed() == changed([row | {"weight": 2.0} for row in rows]) == set()
    for key, value in (("response", "honey"), ("finish_reason", "length"), ("messages", []), ("id", "other")):
        assert changed([rows[0], rows[1] | {key: value}]) == {"data"}
    spaced = tiny.tokenizer()
    spaced.backend_tokenizer.pre_tokenizer = ByteLevel(add_prefix_space=True)
    assert changed(tokenizer=spaced) == {"tokenizer"}
    terse = tiny.tokenizer()
    terse.chat_template = f"{tiny.TEMPLATE} "
    assert changed(tokenizer=terse) == {"template"}


def test_a_changed_shard_is_refused(tmp_path):
    store.write(tmp_path, SOURCE, [("a", rows(2))])
    shard = tmp_path / "00000.safetensors"
    shard.write_bytes(shard.read_bytes()[:-1] + b"\x01")
    with pytest.raises(UserError, match="is not the file that the manifest describes"):
        list(store.read(tmp_path, SOURCE))


def test_a_missing_shard_or_manifest_names_the_stage_that_writes_it(tmp_path):
    store.write(tmp_path, SOURCE, [("a", rows(2))])
    (tmp_path / "00000.safetensors").unlink()
    with pytest.raises(UserError, match="dvc repro weight"):
        list(store.read(tmp_path, SOURCE))
    (tmp_path / store.MANIFEST).unlink()
    with pytest.raises(UserError, match="comes from stage weight"):
        list(store.read(tmp_path, SOURCE))


def test_the_manifest_has_no_time_host_or_path(tmp_path):
    store.write(tmp_path, SOURCE, [("a", rows(2))])
    manifest = json.loads((tmp_path / store.MANIFEST).read_text())
    assert set(manifest) == {"source", "shards", "samples"}
    assert str(tmp_path) not in json.dumps(manifest)


def test_the_shares_of_draws_are_the_distribution_in_the_mean_and_their_number_is_kept():
    logits = torch.tensor([[3.0, 1.0, 0.0, -1.0, 2.0], [0.0, 0.0, 0.0, 9.0, 0.0]])
    mean = torch.zeros(2, 5)
    for seed in range(400):
        drawn = store.draw(logits, 50, seed)
        assert drawn.counts.sum() == 2 * 50
        assert drawn.different.sum() == len(drawn.ids)
        rows = store.shares(drawn, 50, 5)
        mean.scatter_add_(1, rows.ids.long(), rows.log_probs.exp() / 400)
        assert torch.isinf(rows.tail).all()
    assert torch.allclose(mean, logits.softmax(-1), atol=0.015)  # four standard errors of the most uncertain share
    assert torch.equal(store.draw(logits, 50, 3).counts, store.draw(logits, 50, 3).counts)
    assert store.draw(logits, 255, 0).counts.max() == 255, "a count fits into its byte"


def test_the_gradient_of_the_forward_kl_to_draws_is_that_to_the_teacher_in_the_mean_and_to_the_k_best_it_is_not():
    generator = torch.Generator().manual_seed(2)
    logits = torch.randn(1, 12, generator=generator).requires_grad_()
    teacher = torch.randn(1, 12, generator=generator)
    label, weight, known = torch.tensor([0]), torch.ones(1), torch.ones(1, dtype=torch.bool)

    def gradient(rows: store.Rows, tail: str) -> torch.Tensor:
        top = TopK(rows.ids.long(), rows.log_probs.float(), rows.tail, known)
        value = total(logits, label, weight, top, Settings("forward_kl", 0.0, 1.0, 0.5, tail))
        return torch.autograd.grad(value, logits)[0]

    wanted = logits.detach().softmax(-1) - teacher.softmax(-1)
    draws = [gradient(store.shares(store.draw(teacher, 20, seed), 20, 12), "bucket") for seed in range(600)]
    assert torch.allclose(torch.stack(draws).mean(0), wanted, atol=0.02)
    assert not torch.allclose(gradient(store.top_k(teacher, 4), "renormalise"), wanted, atol=0.05)


def test_an_unused_place_of_a_token_with_few_draws_takes_no_mass_from_the_students_tail():
    rows = store.shares(store.Draws(torch.tensor([7, 2, 9]).int(), torch.tensor([4, 1, 3]).to(torch.uint8),
                                        torch.tensor([1, 2]).to(torch.uint8)), 4, 3)  # fmt: skip
    assert rows.ids.tolist() == [[7, 7, 7], [2, 9, 2]]
    assert rows.log_probs.exp().tolist() == [[1, 0, 0], [0.25, 0.75, 0]]


@pytest.mark.parametrize("kind", ["sampled", "hidden"])
def test_draws_and_states_are_read_as_written_over_several_shards(tmp_path, monkeypatch, kind):
    monkeypatch.setattr(store, "SHARD_TOKENS", 6)
    source = replace(SOURCE, kind=kind, size=5 if kind == "sampled" else None)
    torch.manual_seed(0)
    samples = {}
    for number in range(5):
        passed = torch.randn(4, 11)
        samples[f"s{number}"] = store.draw(passed, 5, number) if kind == "sampled" else store.States(passed.bfloat16())
    store.write(tmp_path, source, samples.items())
    assert len(list(tmp_path.glob("*.safetensors"))) == 3
    found = dict(store.read(tmp_path, source))
    assert list(found) == list(samples)
    if kind == "hidden":
        assert all(torch.equal(found[name].states, samples[name].states) for name in samples)
        return
    width = max(int(drawn.different.max()) for drawn in samples.values())
    for name, drawn in samples.items():
        assert same(found[name], store.shares(drawn, 5, width))


def test_where_the_teacher_is_asked_in_training_only_manifest_and_sum_are_written_and_checked(tmp_path):
    source = replace(SOURCE, kind="online", size=None)
    store.write(tmp_path, source, (), torch.tensor([0.5, 2.5]))
    assert sorted(path.name for path in tmp_path.iterdir()) == [store.EXPECTED, store.MANIFEST]
    assert store.read_expected(tmp_path).tolist() == [0.5, 2.5]
    assert list(store.read(tmp_path, source)) == []
    with pytest.raises(UserError, match="data: data"):
        list(store.read(tmp_path, replace(source, data="other")))
    (tmp_path / store.EXPECTED).write_bytes(b"x")
    with pytest.raises(UserError, match="is not the file"):
        store.read_expected(tmp_path)
