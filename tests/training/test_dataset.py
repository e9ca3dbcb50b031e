import math

import pytest
import tiny
import torch
from other_tokenizers import OTHER

from distill.modeling.batches import length_batches, pad_batch
from distill.modeling.chat import Example, encode
from distill.students import vocabulary
from distill.targets import store
from distill.training import dataset


def row(name: str, response: str, weight: float = 1.0) -> dict:
    messages = [{"role": "user", "content": f"What is {name}?"}]
    return {"id": name, "messages": messages, "response": response, "finish_reason": "stop", "weight": weight}


def test_no_prompt_token_and_no_padding_is_learnt():
    batch = pad_batch([([5, 6, 7], [8, 2]), ([5], [9, 9, 2])])
    assert batch.input_ids.tolist() == [[5, 6, 7, 8, 2], [5, 9, 9, 2, 0]]
    assert batch.attention_mask.tolist() == [[1, 1, 1, 1, 1], [1, 1, 1, 1, 0]]
    # the position before a token predicts it
    assert batch.response_mask.tolist() == [[False, False, True, True, False], [True, True, True, False, False]]


def test_batches_hold_like_lengths_within_the_budget():
    examples = [Example(str(size), [1] * size, [2]) for size in (3, 9, 4, 1)]
    assert length_batches(examples, 10) == [[1], [2, 0], [3]]
    assert length_batches(examples, 1) == [[1], [2], [0], [3]]


def test_labels_and_weights_stand_in_the_order_of_the_predicting_positions():
    one = dataset.Sample("a", [1, 3], [4, 2], 0.5, None)
    other = dataset.Sample("b", [1], [5, 6, 2], 2.0, None)
    batch = dataset.collate([one, other])
    assert batch["labels"].tolist() == [4, 2, 5, 6, 2]
    assert batch["weights"].tolist() == [0.5, 0.5, 2.0, 2.0, 2.0]
    shifted = torch.cat([batch["input_ids"][:, 1:], torch.zeros(2, 1, dtype=torch.long)], dim=1)
    assert shifted[batch["response_mask"]].tolist() == batch["labels"].tolist()
    assert "top_ids" not in batch


def test_a_batch_has_one_end_of_turn_to_learn_in_each_row_that_ended_though_padding_is_the_same_token():
    tokenizer = tiny.tokenizer()
    assert tokenizer.pad_token_id == tokenizer.eos_token_id
    cut = row("north", "kites and") | {"finish_reason": "length"}
    rows = [row("ants", "What is honey?"), row("jazz", "people like jazz, maple and the fox", 0.5), cut]
    batch = dataset.collate(dataset.samples(rows, tokenizer, 256))
    each = batch["labels"].split(batch["response_mask"].sum(1).tolist())
    assert [labels.tolist().count(tokenizer.eos_token_id) for labels in each] == [1, 1, 0]
    assert [int(labels[-1]) == tokenizer.eos_token_id for labels in each] == [True, True, False]
    assert [tokenizer.decode(labels) for labels in each[:2]] == [f"{item['response']}<|im_end|>" for item in rows[:2]]
    assert batch["weights"][batch["labels"] == tokenizer.eos_token_id].tolist() == [1.0, 0.5]


def test_equal_ids_in_a_row_are_added_up_and_no_mass_is_lost():
    ids, probs = dataset.merge_duplicates(torch.tensor([[7, 3, 7, 1]]), torch.tensor([[0.4, 0.3, 0.2, 0.05]]))
    merged = {token: round(mass, 4) for token, mass in zip(ids[0].tolist(), probs[0].tolist(), strict=True) if mass}
    assert merged == {1: 0.05, 3: 0.3, 7: 0.6}


@pytest.fixture(scope="module")
def teacher():
    return tiny.tokenizer()


def stored(teacher, rows: list[dict], k: int = 8) -> dict[str, store.Rows]:
    torch.manual_seed(0)
    return {item["id"]: store.top_k(torch.randn(len(encode(teacher, item).response), len(teacher)), k) for item in rows}


def test_with_the_teachers_own_tokenizer_targets_are_those_stored(teacher):
    rows = [row("ants", "What is honey?", 2.0)]
    kept = stored(teacher, rows)
    (sample,) = dataset.samples(rows, teacher, 256, teacher, kept.items())
    assert sample.weight == 2.0
    assert sample.top.known.all()
    mine = {
        (i, int(t)): float(p)
        for i in range(len(sample.top.ids))
        for t, p in zip(sample.top.ids[i], sample.top.log_probs[i].exp(), strict=True)
    }
    for place, (ids, log_probs) in enumerate(zip(kept["ants"].ids, kept["ants"].log_probs, strict=True)):
        for token, value in zip(ids.tolist(), log_probs.float().exp().tolist(), strict=True):
            assert mine[place, token] == pytest.approx(value, rel=2e-3)


@pytest.mark.parametrize("field", ["top_log_probs", "top_tail", "teacher_states", "layer_states"])
def test_what_is_stored_goes_by_the_id_of_its_row_and_not_by_its_place(teacher, field):
    rows = [row(name, "What is honey?") for name in ("ants", "jazz", "north")]
    student = OTHER if field == "top_tail" else teacher  # by spans
    kept = stored(teacher, rows)
    states = {name: store.States(part.log_probs.bfloat16()) for name, part in kept.items()}
    if field == "teacher_states":
        kept = states
    layers = states if field == "layer_states" else {}
    found = [
        {
            sample.id: dataset.collate([sample])[field]
            for sample in dataset.samples(rows, student, 256, teacher, order(kept.items()), order(layers.items()))
        }
        for order in (list, reversed)
    ]
    for name in kept:
        assert torch.equal(found[0][name], found[1][name])
    assert not torch.equal(found[0]["ants"], found[0]["north"])


def test_the_masses_of_each_token_add_up_to_one(teacher):
    rows = [row("ants", "What is honey?")]
    small = vocabulary.trim(teacher, vocabulary.choose(teacher, {}, 290))
    (sample,) = dataset.samples(rows, small, 256, teacher, stored(teacher, rows).items())
    total = sample.top.log_probs.exp().sum(-1) + sample.top.tail.exp()
    assert total.tolist() == pytest.approx([1.0] * len(total), abs=1e-5)


def test_the_later_pieces_of_a_teachers_token_have_no_target(teacher):
    rows = [row("ants", "What is honey?")]
    small = vocabulary.trim(teacher, vocabulary.choose(teacher, {}, 290))
    (sample,) = dataset.samples(rows, small, 256, teacher, stored(teacher, rows).items())
    assert len(sample.response) > len(encode(teacher, rows[0]).response)
    assert int(sample.top.known.sum()) == len(encode(teacher, rows[0]).response)
    assert sample.top.known[0]
    assert sample.top.known[-1], "the end of turn has a target: the student learns to stop"


def test_a_response_cut_to_the_length_keeps_the_targets_of_what_is_left(teacher):
    rows = [row("ants", "What is honey? Tell me more about glass, please.")]
    (whole,) = dataset.samples(rows, teacher, 256, teacher, stored(teacher, rows).items())
    (cut,) = dataset.samples(rows, teacher, 8, teacher, stored(teacher, rows).items())
    assert len(cut) == 8
    assert cut.response == whole.response[:7]
    assert torch.equal(cut.top.ids, whole.top.ids[:7])


def test_a_token_that_the_student_lacks_passes_its_mass_to_its_first_piece(teacher):
    small = vocabulary.trim(teacher, vocabulary.choose(teacher, {}, 290))
    missing = next(place for token, place in sorted(teacher.get_vocab().items()) if token not in small.get_vocab())
    text = row("ants", "a")
    count = len(encode(teacher, text).response)
    logits = torch.full((count, len(teacher)), -20.0)
    logits[:, missing] = 5.0
    (sample,) = dataset.samples([text], small, 256, teacher, [("ants", store.top_k(logits, 3))])
    best = sample.top.ids[0, sample.top.log_probs[0].argmax()]
    spelling = teacher.convert_ids_to_tokens(missing)
    assert spelling.startswith(small.convert_ids_to_tokens(int(best)))
    assert sample.top.log_probs[0].max() == pytest.approx(0, abs=1e-2)
    assert math.isfinite(float(sample.top.log_probs[0].max()))
