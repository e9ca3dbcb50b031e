import json
from dataclasses import replace

import pytest
import torch

from distill import targets
from distill.errors import UserError

SOURCE = targets.Source("t", "m", None, None, "tok", "tmpl", "data", "float32", 3)


def rows(tokens: int, seed: int = 0) -> targets.Rows:
    torch.manual_seed(seed)
    return targets.top_k(torch.randn(tokens, 11), 3)


def same(one: targets.Rows, other: targets.Rows) -> bool:
    return all(torch.equal(getattr(one, name), getattr(other, name)) for name in ("ids", "log_probs", "tail"))


def test_the_k_best_and_the_tail_hold_all_the_mass():
    logits = torch.tensor([[0.0, 1.0, 2.0, 3.0]])
    stored = targets.top_k(logits, 2)
    assert stored.ids.tolist() == [[3, 2]]
    probs = logits.softmax(-1)[0].tolist()
    assert stored.log_probs.float().exp()[0].tolist() == pytest.approx([probs[3], probs[2]], rel=1e-3)
    assert stored.tail.exp().item() == pytest.approx(probs[0] + probs[1], rel=1e-3)


def test_k_of_the_whole_vocabulary_leaves_no_tail():
    stored = targets.top_k(torch.randn(5, 4), 9)
    assert stored.ids.shape == (5, 4)
    assert (stored.tail.exp() < 1e-5).all()


def test_what_is_written_is_read_by_sample_id_over_several_shards(tmp_path, monkeypatch):
    monkeypatch.setattr(targets, "SHARD_TOKENS", 6)
    samples = {f"s{number}": rows(4, number) for number in range(5)}
    targets.write(tmp_path, SOURCE, samples.items())
    assert len(list(tmp_path.glob("*.safetensors"))) == 3
    found = dict(targets.read(tmp_path, SOURCE))
    assert list(found) == list(samples)
    assert all(same(found[name], samples[name]) for name in samples)


def test_the_same_rows_give_the_same_bytes(tmp_path):
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        targets.write(tmp_path / name, SOURCE, [("a", rows(4))])
    for file in (tmp_path / "one").iterdir():
        assert file.read_bytes() == (tmp_path / "two" / file.name).read_bytes()


@pytest.mark.parametrize("key", ["tokenizer", "template", "data", "model", "sha256", "dtype"])
def test_targets_of_anything_else_are_refused_by_name(tmp_path, key):
    targets.write(tmp_path, SOURCE, [("a", rows(2))])
    with pytest.raises(UserError, match=f"{key}: .* \\(expected other\\)"):
        list(targets.read(tmp_path, replace(SOURCE, **{key: "other"})))


def test_a_changed_shard_is_refused(tmp_path):
    targets.write(tmp_path, SOURCE, [("a", rows(2))])
    shard = tmp_path / "00000.safetensors"
    shard.write_bytes(shard.read_bytes()[:-1] + b"\x01")
    with pytest.raises(UserError, match="is not the file that the manifest describes"):
        list(targets.read(tmp_path, SOURCE))


def test_a_missing_shard_or_manifest_names_the_stage_that_writes_it(tmp_path):
    targets.write(tmp_path, SOURCE, [("a", rows(2))])
    (tmp_path / "00000.safetensors").unlink()
    with pytest.raises(UserError, match="dvc repro weight"):
        list(targets.read(tmp_path, SOURCE))
    (tmp_path / targets.MANIFEST).unlink()
    with pytest.raises(UserError, match="comes from stage weight"):
        list(targets.read(tmp_path, SOURCE))


def test_the_manifest_has_no_time_host_or_path(tmp_path):
    targets.write(tmp_path, SOURCE, [("a", rows(2))])
    manifest = json.loads((tmp_path / targets.MANIFEST).read_text())
    assert set(manifest) == {"source", "shards", "samples"}
    assert str(tmp_path) not in json.dumps(manifest)
