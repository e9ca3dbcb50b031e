"""What a base model gives a student of another tokenizer: its answers' tokens, its end of an answer, its targets."""

import json
from dataclasses import replace

import pytest
import tiny
import torch
from forks import stage
from other_tokenizers import OTHER, PIECES

from distill.core.errors import UserError
from distill.modeling import few_shot
from distill.modeling.chat import encode, prompt_ids, response_ids
from distill.params import loading
from distill.students import vocabulary
from distill.targets import spans as targets_spans
from distill.targets import store, tokenizers
from distill.targets.alignment import response_spans, spelling
from distill.training.dataset import samples

STUDENT = tiny.tokenizer()
LINES = " What people\n\n  like\nis honey. "
ROW = tiny.weighted("honey", "What people like is honey.", 1.0)


def base(tokenizer):
    """The tokenizer as `loading.load_teacher_tokenizer` returns it with chat_template few_shot."""
    result = tokenizer.__class__(tokenizer_object=tokenizer.backend_tokenizer, **tokenizer.special_tokens_map)
    result.chat_template = few_shot.TEMPLATE
    return result


TEACHERS = {"byte-level": base(OTHER), "sentencepiece": base(PIECES), "the student's own": base(STUDENT)}


@pytest.fixture(params=TEACHERS)
def teacher(request):
    return TEACHERS[request.param]


def learnt(teacher, row=ROW) -> tuple[torch.Tensor, list[int], targets_spans.SpanTargets]:
    """Log-probabilities of a base model for a row's answer [tokens, vocab], the answer's ids, what a student learns."""
    example = encode(teacher, row)
    network = tiny.model(len(teacher))
    with torch.no_grad():
        logits = network(torch.tensor([[*example.prompt, *example.response]])).logits[0, len(example.prompt) - 1 : -1]
    rows = store.top_k(logits, len(teacher))
    exact = replace(rows, log_probs=logits.log_softmax(-1).gather(1, rows.ids.long()))
    (sample,) = samples([row], STUDENT, 256, teacher, [(row["id"], exact)])
    assert isinstance(sample.top, targets_spans.SpanTargets)
    return logits.log_softmax(-1), example.response, sample.top


@pytest.mark.parametrize("text", ["What people like is honey.", "Bees\nmake honey.", LINES])
def test_an_answers_tokens_follow_the_prompt_as_the_template_writes_them(teacher, text):
    messages = [{"role": "user", "content": "What is honey?"}]
    written = teacher.apply_chat_template([*messages, {"role": "assistant", "content": text}], tokenize=False)
    ids = [*prompt_ids(teacher, messages), *response_ids(teacher, text, False)]
    whole = teacher(written.removesuffix(few_shot.STOP), add_special_tokens=False).input_ids
    assert ids == whole
    stop = teacher(few_shot.STOP, add_special_tokens=False).input_ids[0]
    assert response_ids(teacher, text, True) == [*response_ids(teacher, text, False), stop]


def test_a_tokenizer_that_joins_the_end_of_the_prompt_with_the_answer_is_refused():
    class Joining:
        name_or_path = "joining"

        def __call__(self, text, **ignored):
            return type("Encoded", (), {"input_ids": [len(text)]})

    with pytest.raises(UserError, match="makes one token of the end of 'Answer:'"):
        few_shot.response_ids(Joining(), "So.", True)


@pytest.mark.parametrize("late", [0, 1])
def test_the_spans_texts_multiply_to_the_answer_and_do_not_where_the_first_begins_late(teacher, late, monkeypatch):
    """The chain rule over plain log-probabilities; `late` is a planted fault, by so many tokens of the teacher."""

    def spans(*arguments):
        first, *others = response_spans(*arguments)
        return [replace(first, teacher=(first.teacher[0] + late, first.teacher[1])), *others]

    monkeypatch.setattr(targets_spans, "response_spans", spans)
    log_probs, ids, top = learnt(teacher)
    own = log_probs[torch.arange(len(ids)), torch.tensor(ids)]
    ends = few_shot.end_tokens(teacher, spelling(teacher).tokens)
    expected = float(own[:-1].sum() + log_probs[-1, ends].logsumexp(-1))
    found = float(top.text[top.length > 0].sum())
    assert (abs(found - expected) < 1e-2) == (late == 0)
    assert top.known.all(), "a token of the student has no target"
    assert top.length.sum() == len(response_ids(STUDENT, ROW["response"], True))


def test_all_with_which_the_teacher_ends_an_answer_stands_for_the_students_end_of_turn(teacher):
    log_probs, _, top = learnt(teacher)
    ends = few_shot.end_tokens(teacher, spelling(teacher).tokens)
    assert teacher.eos_token_id in ends
    assert top.length[-1] == 1
    assert top.text[-1].item() == pytest.approx(log_probs[-1, ends].logsumexp(-1).item(), abs=1e-3)
    inside = (top.ids[:-1] == STUDENT.eos_token_id) & torch.isfinite(top.log_probs[:-1])
    starts = [place for place in range(len(top.length) - 1) if top.length[place] > 0]
    assert inside.sum(-1).tolist() == [int(place in starts) for place in range(len(top.length) - 1)]
    assert top.log_probs[0][inside[0]].item() == pytest.approx(log_probs[0, ends].logsumexp(-1).item(), abs=1e-3)


def test_masses_of_a_base_model_add_up_to_one(teacher):
    _, _, top = learnt(teacher)
    starts = top.length > 0
    masses = top.log_probs[starts].exp().sum(-1) + top.text[starts].exp() + top.tail[starts].exp()
    assert torch.allclose(masses, torch.ones(len(masses)), atol=1e-3)


def test_ends_that_are_not_stored_leave_a_row_as_it_is():
    rows = store.Rows(torch.tensor([[4, 5], [9, 4]]), torch.tensor([[0.5, 0.3], [0.6, 0.3]]).log(), torch.zeros(2))
    found = targets_spans.ends_as_one(rows, (3, 9), 3)
    assert found.ids.tolist() == [[4, 5], [3, 4]]
    assert torch.equal(found.log_probs, rows.log_probs)


def test_blank_lines_of_another_teachers_answer_end_the_targets_before_them_and_not_the_end_of_turn():
    _, _, top = learnt(TEACHERS["byte-level"], tiny.weighted("honey", "What people like\n\nis honey.", 1.0))
    known = top.known.tolist()
    assert known[0]
    assert known[-1]
    assert not all(known)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"weight__targets": {"kind": "online", "teacher": "base", "batch_tokens": 64}}, "kind: must be stored for"),
        ({"weight__layers": [1]}, "weight.layers: must be null for teacher 'base'"),
        ({"train__student__teacher": "base"}, "train.student.teacher: must be a local teacher of `teachers` with its"),
        ({"weight__targets__teacher": "nobody"}, "weight.targets.teacher: must be a local teacher of `teachers`"),
    ],
)
def test_what_a_base_model_cannot_give_is_refused(changes, words):
    with pytest.raises(UserError, match=words):
        loading.check(tiny.params(**(few_shot_params() | changes)))


def few_shot_params(share: float = 0.0) -> dict:
    """The tiny experiment with targets of a base model beside its teacher."""
    tiny_teacher = tiny.params()["teachers"][0]
    other = tiny_teacher | {"name": "base", "model": "base", "chat_template": "few_shot", "prompt_fraction": share}
    return {
        "teachers": [tiny_teacher, other],
        "weight__targets__teacher": "base",
        "train__distilled__cross_entropy_share": 0.5,
    }


def test_what_another_teacher_expects_counts_for_the_vocabulary_by_its_spelling():
    mates = vocabulary.mates_of(TEACHERS["byte-level"], STUDENT)
    assert vocabulary.mates_of(TEACHERS["the student's own"], STUDENT) is None
    both = next(place for place, mate in enumerate(mates.tolist()) if mate > 0 and place != mate)
    alone = next(place for place, mate in enumerate(mates.tolist()) if mate < 0)
    rows = store.Rows(torch.tensor([[both, alone]]), torch.tensor([[0.5, 0.5]]).log(), torch.zeros(1))
    with_it, without = (vocabulary.token_counts([], STUDENT, part, None, mates) for part in ([("a", rows)], None))
    assert without == {}
    assert with_it == {int(mates[both]): pytest.approx(0.5)}


@pytest.mark.slow
@pytest.mark.parametrize("share", [0.0, 1.0])
def test_a_student_of_one_teacher_is_distilled_from_a_base_model_of_another_tokenizer(tmp_path, share):
    folder = tiny.repository(tmp_path, **few_shot_params(share))
    OTHER.save_pretrained(folder / "base")
    tiny.model(len(OTHER), layers=2, spread=0.05).save_pretrained(folder / "base")
    for name in ("generate", "clean", "weight", "train init", "train distilled 7"):
        stage(folder, name)
    rows = [json.loads(line) for line in (folder / "data/weighted/train.jsonl").read_text().splitlines()]
    assert {row["teacher"] for row in rows} == ({"tiny", "base"} if share else {"tiny"})
    manifest = json.loads((folder / "data/weighted/targets/manifest.json").read_text())
    teacher = TEACHERS["byte-level"]
    assert manifest["source"]["tokenizer"] == tokenizers.fingerprint(teacher)
    assert {row["id"]: len(encode(teacher, row).response) for row in rows} == {
        key: length for key, (_, _, length) in manifest["samples"].items()
    }
    names = ("init", "distilled-7")
    before, after = (json.loads((folder / f"metrics/train/{name}.json").read_text()) for name in names)
    assert after["validation_loss"] < before["validation_loss"]
    card = (folder / "models/distilled-7/README.md").read_text()
    assert ("its probabilities" in card) == (not share), "a source of which it has answers is listed with these"
