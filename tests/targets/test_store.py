import json
from dataclasses import replace

import pytest
import tiny
import torch
from tokenizers.pre_tokenizers import ByteLevel

from distill.core.errors import UserError
from distill.params.loading import check_params
from distill.targets import store
from distill.targets.stored import StoredStates, StoredTopK, draw, top_k

SOURCE = store.Source("t", "m", None, None, "tok", "tmpl", "data", "float32", "top_k", 3)


def top_k_rows(tokens: int, seed: int = 0) -> StoredTopK:
    torch.manual_seed(seed)
    return top_k(torch.randn(tokens, 11), 3)


def is_equal(first: StoredTopK, second: StoredTopK) -> bool:
    return all(torch.equal(getattr(first, name), getattr(second, name)) for name in ("ids", "log_probs", "tail"))


def test_targets_are_read_by_sample_id(tmp_path, monkeypatch):
    monkeypatch.setattr(store, "SHARD_TOKENS", 6)
    samples = {f"s{number}": top_k_rows(4, number) for number in range(5)}
    store.write_targets(tmp_path, SOURCE, samples.items())
    assert len(list(tmp_path.glob("*.safetensors"))) == 3
    read = dict(store.read_targets(tmp_path, SOURCE))
    assert list(read) == list(samples)
    assert all(is_equal(read[name], samples[name]) for name in samples)


def test_the_same_rows_give_the_same_bytes(tmp_path):
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        store.write_targets(tmp_path / name, SOURCE, [("a", top_k_rows(4))])
    for file in (tmp_path / "one").iterdir():
        assert file.read_bytes() == (tmp_path / "two" / file.name).read_bytes()


@pytest.mark.parametrize("key", ["tokenizer", "template", "data", "model", "sha256", "dtype", "kind", "size"])
def test_targets_of_another_source_are_refused(tmp_path, key):
    store.write_targets(tmp_path, SOURCE, [("a", top_k_rows(2))])
    with pytest.raises(UserError, match=f"{key}: .* \\(expected other\\)"):
        list(store.read_targets(tmp_path, replace(SOURCE, **{key: "other"})))


def test_a_source_depends_on_texts_and_tokenizer():
    params = check_params(tiny.params())
    rows = [tiny.weighted(name, "What is honey?", 1.0) for name in ("ants", "jazz")]

    def changed(rows=rows, tokenizer=None) -> set[str]:
        """The fields that differ from those of the two rows by the tiny tokenizer."""
        made_from = params.teachers[0], tokenizer or tiny.tokenizer(), rows, "float32", params.targets
        return {
            name for name, value in vars(store.describe_source(*made_from)).items() if value != getattr(usual, name)
        }

    usual = store.describe_source(params.teachers[0], tiny.tokenizer(), rows, "float32", params.targets)
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
    store.write_targets(tmp_path, SOURCE, [("a", top_k_rows(2))])
    shard = tmp_path / "00000.safetensors"
    shard.write_bytes(shard.read_bytes()[:-1] + b"\x01")
    with pytest.raises(UserError, match="is not the file that the manifest describes"):
        list(store.read_targets(tmp_path, SOURCE))


def test_a_missing_shard_or_manifest_names_its_stage(tmp_path):
    store.write_targets(tmp_path, SOURCE, [("a", top_k_rows(2))])
    (tmp_path / "00000.safetensors").unlink()
    with pytest.raises(UserError, match="dvc repro targets"):
        list(store.read_targets(tmp_path, SOURCE))
    (tmp_path / store.MANIFEST).unlink()
    with pytest.raises(UserError, match="comes from stage targets"):
        list(store.read_targets(tmp_path, SOURCE))


def test_the_manifest_has_no_time_host_or_path(tmp_path):
    store.write_targets(tmp_path, SOURCE, [("a", top_k_rows(2))])
    manifest = json.loads((tmp_path / store.MANIFEST).read_text())
    assert set(manifest) == {"source", "shards", "samples", "sha256"}
    assert str(tmp_path) not in json.dumps(manifest)


@pytest.mark.parametrize("kind", ["sampled", "hidden_states"])
def test_draws_and_states_are_read_as_written(tmp_path, monkeypatch, kind):
    monkeypatch.setattr(store, "SHARD_TOKENS", 6)
    source = replace(SOURCE, kind=kind, size=5 if kind == "sampled" else None)
    torch.manual_seed(0)
    samples = {}
    for number in range(5):
        passed = torch.randn(4, 11)
        samples[f"s{number}"] = draw(passed, 5, number) if kind == "sampled" else StoredStates(passed.bfloat16())
    store.write_targets(tmp_path, source, samples.items())
    assert len(list(tmp_path.glob("*.safetensors"))) == 3
    read = dict(store.read_targets(tmp_path, source))
    assert list(read) == list(samples)
    if kind == "hidden_states":
        assert all(torch.equal(read[name].states, samples[name].states) for name in samples)
        return
    width = max(int(drawn.num_distinct.max()) for drawn in samples.values())
    for name, drawn in samples.items():
        assert is_equal(read[name], drawn.frequencies(5, width))


def test_online_targets_store_the_expected_counts(tmp_path):
    source = replace(SOURCE, kind="online", size=None)
    store.write_targets(tmp_path, source, (), torch.tensor([0.5, 2.5]))
    assert sorted(path.name for path in tmp_path.iterdir()) == [store.EXPECTED_COUNTS, store.MANIFEST]
    assert store.read_expected_counts(tmp_path).tolist() == [0.5, 2.5]
    assert list(store.read_targets(tmp_path, source)) == []
    with pytest.raises(UserError, match="data: data"):
        list(store.read_targets(tmp_path, replace(source, data="other")))
    (tmp_path / store.EXPECTED_COUNTS).write_bytes(b"x")
    with pytest.raises(UserError, match="is not the file"):
        store.read_expected_counts(tmp_path)
