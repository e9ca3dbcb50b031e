import math

import pytest
import tiny
import torch
from other_tokenizers import OTHER

from distill.modeling.chat import encode
from distill.students.vocabulary import select_tokens, trim_tokenizer
from distill.targets.distributions import OutputStates
from distill.targets.spans import SpanTargets
from distill.targets.stored import StoredStates, StoredTopK, top_k
from distill.training.dataset import Sample, TeacherTargets, collate, encode_samples


def row(name: str, response: str, weight: float = 1.0) -> dict:
    messages = [{"role": "user", "content": f"What is {name}?"}]
    return {"id": name, "messages": messages, "response": response, "finish_reason": "stop", "weight": weight}


def test_labels_and_weights_follow_the_response_mask():
    first = Sample("a", [1, 3], [4, 2], 0.5, None)
    second = Sample("b", [1], [5, 6, 2], 2.0, None)
    batch = collate([first, second])
    assert batch["labels"].tolist() == [4, 2, 5, 6, 2]
    assert batch["weights"].tolist() == [0.5, 0.5, 2.0, 2.0, 2.0]
    shifted = torch.cat([batch["input_ids"][:, 1:], torch.zeros(2, 1, dtype=torch.long)], dim=1)
    assert shifted[batch["response_mask"]].tolist() == batch["labels"].tolist()
    assert "targets" not in batch


def test_finished_rows_learn_one_end_of_turn():
    tokenizer = tiny.tokenizer()
    assert tokenizer.pad_token_id == tokenizer.eos_token_id
    cut = row("north", "kites and") | {"finish_reason": "length"}
    rows = [row("ants", "What is honey?"), row("jazz", "people like jazz, maple and the fox", 0.5), cut]
    batch = collate(encode_samples(rows, tokenizer, 256))
    each = batch["labels"].split(batch["response_mask"].sum(1).tolist())
    assert [labels.tolist().count(tokenizer.eos_token_id) for labels in each] == [1, 1, 0]
    assert [int(labels[-1]) == tokenizer.eos_token_id for labels in each] == [True, True, False]
    assert [tokenizer.decode(labels) for labels in each[:2]] == [f"{item['response']}<|im_end|>" for item in rows[:2]]
    assert batch["weights"][batch["labels"] == tokenizer.eos_token_id].tolist() == [1.0, 0.5]


@pytest.fixture(scope="module")
def teacher():
    return tiny.tokenizer()


def stored(teacher, rows: list[dict], k: int = 8) -> dict[str, StoredTopK]:
    torch.manual_seed(0)
    return {item["id"]: top_k(torch.randn(len(encode(teacher, item).response), len(teacher)), k) for item in rows}


def test_the_teachers_tokenizer_keeps_targets(teacher):
    rows = [row("ants", "What is honey?", 2.0)]
    kept = stored(teacher, rows)
    (sample,) = encode_samples(rows, teacher, 256, TeacherTargets(teacher, kept, {}))
    assert sample.weight == 2.0
    assert sample.targets.known.all()
    by_token = {
        (i, int(t)): float(p)
        for i in range(len(sample.targets.ids))
        for t, p in zip(sample.targets.ids[i], sample.targets.log_probs[i].exp(), strict=True)
    }
    for position, (ids, log_probs) in enumerate(zip(kept["ants"].ids, kept["ants"].log_probs, strict=True)):
        for token, value in zip(ids.tolist(), log_probs.float().exp().tolist(), strict=True):
            assert by_token[position, token] == pytest.approx(value, rel=2e-3)


FIELDS = {  # of a batch: the kind of its targets, and a tensor of them that differs from row to row
    "top_k": lambda batch: batch["targets"].log_probs,
    "spans": lambda batch: batch["targets"].tail,
    "output_states": lambda batch: batch["targets"].states,
    "layer_states": lambda batch: batch["layer_states"],
}


@pytest.mark.parametrize("field", FIELDS)
def test_targets_are_found_by_row_id(teacher, field):
    rows = [row(name, "What is honey?") for name in ("ants", "jazz", "north")]
    student = OTHER if field == "spans" else teacher
    kept = stored(teacher, rows)
    states = {name: StoredStates(targets.log_probs.bfloat16()) for name, targets in kept.items()}
    if field == "output_states":
        kept = states
    layers = states if field == "layer_states" else {}
    forward, backward = (
        {
            sample.id: FIELDS[field](collate([sample]))
            for sample in encode_samples(
                rows, student, 256, TeacherTargets(teacher, dict(order(kept.items())), dict(order(layers.items())))
            )
        }
        for order in (list, reversed)
    )
    for name in kept:
        assert torch.equal(forward[name], backward[name])
    assert not torch.equal(forward["ants"], forward["north"])


@pytest.mark.parametrize(("field", "kind"), [("spans", SpanTargets), ("output_states", OutputStates)])
def test_a_batch_has_targets_of_one_kind(teacher, field, kind):
    rows = [row("ants", "What is honey?"), row("jazz", "people like jazz")]
    kept = stored(teacher, rows)
    if field == "output_states":
        kept = {name: StoredStates(targets.log_probs.bfloat16()) for name, targets in kept.items()}
    student = OTHER if field == "spans" else teacher
    batch = collate(encode_samples(rows, student, 256, TeacherTargets(teacher, kept, {})))
    assert isinstance(batch["targets"], kind)
    assert len(batch["targets"].known) == len(batch["labels"])


def test_masses_of_each_token_add_up_to_one(teacher):
    rows = [row("ants", "What is honey?")]
    trimmed = trim_tokenizer(teacher, select_tokens(teacher, {}, 290))
    (sample,) = encode_samples(rows, trimmed, 256, TeacherTargets(teacher, stored(teacher, rows), {}))
    total = sample.targets.log_probs.exp().sum(-1) + sample.targets.tail.exp()
    assert total.tolist() == pytest.approx([1.0] * len(total), abs=1e-5)


def test_later_pieces_of_a_token_have_no_target(teacher):
    rows = [row("ants", "What is honey?")]
    trimmed = trim_tokenizer(teacher, select_tokens(teacher, {}, 290))
    (sample,) = encode_samples(rows, trimmed, 256, TeacherTargets(teacher, stored(teacher, rows), {}))
    assert len(sample.response) > len(encode(teacher, rows[0]).response)
    assert int(sample.targets.known.sum()) == len(encode(teacher, rows[0]).response)
    assert sample.targets.known[0]
    assert sample.targets.known[-1], "the end of turn has a target: the student learns to stop"


def test_a_truncated_response_keeps_its_targets(teacher):
    rows = [row("ants", "What is honey? Tell me more about glass, please.")]
    (uncut,) = encode_samples(rows, teacher, 256, TeacherTargets(teacher, stored(teacher, rows), {}))
    (cut,) = encode_samples(rows, teacher, 8, TeacherTargets(teacher, stored(teacher, rows), {}))
    assert len(cut) == 8
    assert cut.response == uncut.response[:7]
    assert torch.equal(cut.targets.ids, uncut.targets.ids[:7])


def test_a_missing_token_passes_its_mass_to_its_first_piece(teacher):
    trimmed = trim_tokenizer(teacher, select_tokens(teacher, {}, 290))
    missing = next(
        position for token, position in sorted(teacher.get_vocab().items()) if token not in trimmed.get_vocab()
    )
    text = row("ants", "a")
    count = len(encode(teacher, text).response)
    logits = torch.full((count, len(teacher)), -20.0)
    logits[:, missing] = 5.0
    (sample,) = encode_samples([text], trimmed, 256, TeacherTargets(teacher, {"ants": top_k(logits, 3)}, {}))
    best = sample.targets.ids[0, sample.targets.log_probs[0].argmax()]
    spelling = teacher.convert_ids_to_tokens(missing)
    assert spelling.startswith(trimmed.convert_ids_to_tokens(int(best)))
    assert sample.targets.log_probs[0].max() == pytest.approx(0, abs=1e-2)
    assert math.isfinite(float(sample.targets.log_probs[0].max()))
