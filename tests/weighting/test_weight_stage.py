"""Weights of rows by each measure, what rows lack, and the data card by the stage's own command."""

import json
import math
import shutil

import forks
import numpy as np
import pytest
import tiny
import torch
import yaml
from scipy.stats import entropy
from transformers import Gemma2Config, Gemma2ForCausalLM

from distill.cards import data_card
from distill.modeling.batches import length_batches
from distill.modeling.chat import encode
from distill.params.loading import check_params
from distill.weighting.confidence import MEASURES
from stages import weight as stage

WANTED = check_params(tiny.params(weight__targets__top_k=4, weight__targets__batch_tokens=64)).weight.targets


def settings(**changes):
    return check_params(tiny.params(**{f"weight__{key}": value for key, value in changes.items()})).weight


def row(number, sample=0, **changes):
    prompt = f"ants/{number}"
    return {
        "id": f"{prompt}@tiny" + (f"/{sample}" if sample else ""),
        "prompt_id": prompt,
        "topic": "ants",
        "teacher": "tiny",
        "sample": sample,
        "messages": [{"role": "user", "content": "What is ants?"}],
        "response": f"ants | bread {'and kites ' * number}".strip(),
        "finish_reason": "stop",
        "logprobs": [-0.1 * number - 0.1] * 5,
        "degraded": [],
        **changes,
    }


def test_a_row_that_lacks_what_the_measure_needs_counts_neutrally_and_says_so():
    rows = [row(0, degraded=["no_logprobs"]), *(row(number) for number in range(1, 5))]
    known = [None, 0.0, 1.0, 2.0, 3.0]
    weighted, _ = stage.weigh(rows, known, settings(confidence="entropy", length_buckets=1), 0)
    weights = [one["weight"] for one in weighted]
    assert weights[1:] == sorted(weights[1:])
    assert weights[2] < weights[0] < weights[3]
    assert weighted[0]["degraded"] == ["no_logprobs", "no_entropy"]
    assert [one["degraded"] for one in weighted[1:]] == [[]] * 4
    assert weighted[0]["confidence"] is None
    uniform, _ = stage.weigh(rows, known, settings(scheme="uniform"), 0)
    assert [(one["weight"], one["degraded"]) for one in uniform] == [(1.0, one["degraded"]) for one in rows]


def test_rows_of_before_the_field_degraded_get_it_where_they_lack_something():
    old = {key: value for key, value in row(1).items() if key != "degraded"}
    weighted, _ = stage.weigh([old, old], [None, 1.0], settings(), 0)
    assert weighted[0]["degraded"] == ["no_mean_log_prob"]
    assert "degraded" not in weighted[1]


def test_samples_that_clean_dropped_count_for_self_consistency_and_other_prompts_do_not():
    rows = [row(1, response="yes"), row(1, 1, response="no"), row(2, response="yes")]
    dropped = [
        row(1, 2, response="Yes", reason="duplicate"),
        row(1, 3, response=" ", reason="empty"),
        row(9, response="yes"),
        row(2, response="yes", id="ants/2@other", teacher="other"),
    ]
    found = stage.evidence(rows, dropped, {})
    assert [list(one.others) for one in found] == [["no", "Yes"], ["yes", "Yes"], []]
    values = [MEASURES["self_consistency"](one, 1) for one in found]
    assert values == [0.5, 0.0, None]


@pytest.fixture(scope="module")
def teacher():
    tokenizer = tiny.tokenizer()
    return tiny.model(len(tokenizer)), tokenizer


def log_prob(network, ids, start):
    """Mean log-probability of ids[start:] by a plain forward pass."""
    logits = network(torch.tensor([ids])).logits[0].log_softmax(-1)
    return np.mean([float(logits[place - 1, ids[place]].detach()) for place in range(start, len(ids))])


def test_ifd_is_the_ratio_of_perplexities_of_plain_forward_passes(teacher):
    network, tokenizer = teacher
    rows = [row(number) for number in range(4)]
    examples = [encode(tokenizer, one) for one in rows]
    seen: dict[str, dict] = {}
    for _ in stage.teacher_rows(network, examples, WANTED, len(tokenizer), 0, seen):
        pass
    alone = stage.without_prompt(network, tokenizer, examples, 64)
    for example in examples:
        with_prompt = log_prob(network, [*example.prompt, *example.response], len(example.prompt))
        without = log_prob(network, [tokenizer.bos_token_id, *example.response], 1)
        assert seen[example.id]["with_prompt"] == pytest.approx(with_prompt, rel=1e-4)
        assert alone[example.id] == pytest.approx(without, rel=1e-4)
    assert len(seen) == 4


def test_entropies_and_margins_are_those_of_scipy_on_plain_forward_passes(teacher):
    network, tokenizer = teacher
    example = encode(tokenizer, row(1))
    seen: dict[str, dict] = {}
    list(stage.teacher_rows(network, [example], WANTED, len(tokenizer), 0, seen))
    probs = network(torch.tensor([[*example.prompt, *example.response]])).logits[0].softmax(-1).detach().numpy()
    for place in range(len(example.response)):
        at = probs[len(example.prompt) - 1 + place]
        second, best = np.sort(at)[-2:]
        assert seen[example.id]["entropies"][place] == pytest.approx(entropy(at), rel=1e-4)
        assert seen[example.id]["margins"][place] == pytest.approx(np.log(best / second), abs=1e-4)


@pytest.mark.parametrize("kind", ["stored", "hidden"])
def test_what_is_stored_of_a_ragged_batch_is_what_each_row_has_alone(teacher, kind):
    network, tokenizer = teacher
    options = {"stored": {"top_k": 8}, "hidden": {}}[kind]
    wanted = settings(targets={"kind": kind, "teacher": "tiny", "batch_tokens": 1000, **options}).targets
    asked = [[{"role": "user", "content": f"What is {topic}?"}] for topic in tiny.TOPICS[:4]]
    examples = [encode(tokenizer, row(number, messages=messages)) for number, messages in enumerate(asked)]
    assert len(length_batches(examples, 1000)) == 1
    assert len({len(example.response) for example in examples}) > 1
    found = dict(stage.teacher_rows(network, examples, wanted, len(tokenizer), 0, None))
    for example in examples:
        ((_, alone),) = stage.teacher_rows(network, [example], wanted, len(tokenizer), 0, None)
        for name, part in vars(alone).items():
            torch.testing.assert_close(getattr(found[example.id], name), part, rtol=1e-2, atol=1e-2)
        logits = network(torch.tensor([[*example.prompt, *example.response]])).logits[0, len(example.prompt) - 1 : -1]
        if kind == "stored":
            assert torch.equal(alone.ids[:, 0], logits.argmax(-1).int())


@pytest.mark.parametrize("kind", ["hidden", "online"])
def test_the_sum_of_whole_distributions_is_that_of_plain_forward_passes(teacher, kind):
    network, tokenizer = teacher
    wanted = settings(targets={"kind": kind, "teacher": "tiny", "batch_tokens": 64}).targets
    examples = [encode(tokenizer, row(number)) for number in range(3)]
    found, plain = torch.zeros(len(tokenizer)), torch.zeros(len(tokenizer))
    stored = dict(stage.teacher_rows(network, examples, wanted, len(tokenizer), 0, None, found))
    assert sorted(stored) == (sorted(example.id for example in examples) if kind == "hidden" else [])
    for example in examples:
        logits = network(torch.tensor([[*example.prompt, *example.response]])).logits[0, len(example.prompt) - 1 : -1]
        plain += logits.detach().softmax(-1).sum(0)
    torch.testing.assert_close(found, plain, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", ["stored", "sampled", "hidden"])
def test_logits_beyond_the_tokenizer_are_padding_of_a_family_and_have_no_mass(teacher, kind):
    """As Qwen2.5's 151,936 and 152,064 logits for one tokenizer of 151,665 tokens."""
    tokenizer = teacher[1]
    padded = tiny.model(len(tokenizer) + 40)
    with torch.no_grad():
        padded.get_input_embeddings().weight[len(tokenizer) :] *= 20
    examples = [encode(tokenizer, row(number)) for number in range(2)]
    options = {"stored": {"top_k": 8}, "sampled": {"draws": 50}, "hidden": {}}[kind]
    wanted = settings(targets={"kind": kind, "teacher": "tiny", "batch_tokens": 64, **options}).targets
    assert any(
        padded(torch.tensor([one.prompt])).logits.argmax() % padded.vocab_size >= len(tokenizer) for one in examples
    )
    expected = torch.zeros(len(tokenizer))
    stored = dict(stage.teacher_rows(padded, examples, wanted, len(tokenizer), 0, None, expected))
    assert expected.sum().item() == pytest.approx(sum(len(one.response) for one in examples), rel=1e-4)
    if kind != "hidden":
        assert max(int(part.ids.max()) for part in stored.values()) < len(tokenizer)


def test_states_are_refused_of_a_teacher_that_changes_its_logits_after_the_product(teacher):
    network, tokenizer = teacher
    example = encode(tokenizer, row(1))
    assert stage.ends_in_a_product(network, example)
    capped = Gemma2ForCausalLM(
        Gemma2Config(
            vocab_size=len(tokenizer), hidden_size=32, intermediate_size=64, num_hidden_layers=2, head_dim=8,
            num_attention_heads=4, num_key_value_heads=2, final_logit_softcapping=0.1, pad_token_id=2,
        )
    ).eval()  # fmt: skip
    assert not stage.ends_in_a_product(capped, example)


def test_what_the_pass_shows_stands_for_what_a_row_lacks():
    (bare, full) = stage.evidence([row(1), row(2, entropies=[9.0])], [], {row(1)["id"]: {"entropies": [1.0]}})
    assert (bare.entropies, full.entropies) == ([1.0], [9.0])


CLEANING = {
    "requested": 9, "kept": 8, "dropped": 1, "reasons": {"duplicate": 1, "empty": 0},
    "splits": {split: {"topics": 1, "rows": 2, "words": 5} for split in ("train", "validation", "test")},
}  # fmt: skip


def command(folder, **changes):
    value = tiny.params(**{f"weight__{key}": part for key, part in changes.items()})
    value["teachers"].append({**value["teachers"][0], "name": "second", "license": None})
    (folder / "params.yaml").write_text(yaml.safe_dump(value, sort_keys=False))
    return forks.stage(folder, "weight")


@pytest.fixture
def folder(tmp_path, teacher):
    network, tokenizer = teacher
    for part in (network, tokenizer):
        part.save_pretrained(tmp_path / "teacher")
    for name in ("data/clean", "metrics"):
        (tmp_path / name).mkdir(parents=True)
    rows = [row(number) for number in range(12)]
    (tmp_path / "data/clean/train.jsonl").write_text("".join(json.dumps(one) + "\n" for one in rows))
    (tmp_path / "data/clean/dropped.jsonl").write_text(
        json.dumps(row(3, 1, response="ants", reason="duplicate")) + "\n"
    )
    (tmp_path / "metrics/clean.json").write_text(json.dumps(CLEANING))
    shutil.copy(tiny.ROOT / "requirements.txt", tmp_path)
    return tmp_path


def test_of_rows_that_weigh_the_same_none_is_shown_as_the_heaviest_or_the_lightest():
    rows = [row(number) | {"weight": 1.0} for number in range(3)]
    assert data_card.extremes(rows) == {"highest": [], "lowest": []}
    rows[1]["weight"] = 0.5
    assert [some[0]["id"] for some in data_card.extremes(rows).values()] == [rows[0]["id"], rows[1]["id"]]


def test_the_card_has_counts_weights_and_licenses_and_shows_text_as_it_is(folder):
    command(folder)
    card = (folder / "data/README.md").read_text()
    metrics = json.loads((folder / "metrics/weight.json").read_text())
    rows = [json.loads(line) for line in (folder / "data/weighted/train.jsonl").open()]
    order = [one["id"] for one in sorted(rows, key=lambda one: (-one["weight"], one["id"]))]
    assert [one["id"] for one in metrics["highest"]] == order[:10]
    assert [one["weight"] for one in metrics["lowest"]] == sorted(one["weight"] for one in rows)[:10]
    assert [(one["name"], one["license"], one["rows"]) for one in metrics["teachers"]] == [
        ("second", None, 0),
        ("tiny", "none: random weights", 12),
    ]
    assert "| tiny | teacher | none&#58; random weights | 12 |" in card
    assert "| second | teacher | not stated" in card
    assert "Of 9 requested responses, 8 were kept and 1 dropped." in card
    assert "| duplicate | 1 |" in card
    assert "ants &#124; bread" in card
    assert "ants | bread" not in card
    assert metrics["words"]["max"] == 2 + 22
    assert f"rank correlation of weight and length {metrics['correlation_with_length']:.2g}" in card
    lines = card.splitlines()
    assert sum("@tiny" in line.replace("&#64;", "@") for line in lines) == 20
    assert all(line.count(" | ") == 4 for line in lines if "&#64;" in line)


def test_by_ifd_every_row_has_its_ratio_and_none_is_dropped(folder):
    command(folder, confidence="ifd")
    rows = [json.loads(line) for line in (folder / "data/weighted/train.jsonl").open()]
    assert len(rows) == 12
    for one in rows:
        assert (one["confidence"] is None) == (one["degraded"] == ["no_ifd"])
        assert one["confidence"] is None or 0 < one["confidence"] < 1
    assert any(one["confidence"] is not None for one in rows)
    assert json.loads((folder / "metrics/weight.json").read_text())["confidence"] == "ifd"
    assert math.isclose(np.mean([one["weight"] for one in rows]), 1, rel_tol=1e-5)
