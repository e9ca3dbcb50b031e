"""Targets over spans of equal text, from base models and from teachers of other tokenizers."""

import json
from dataclasses import replace

import pytest
import tiny
import torch
from forks import stage
from other_tokenizers import FEW_SHOT, OTHER

from distill.core.errors import UserError
from distill.modeling import few_shot
from distill.modeling.chat import encode, prompt_ids, response_ids
from distill.params.loading import check_params
from distill.targets import spans as targets_spans
from distill.targets import tokenizers
from distill.targets.alignment import response_spans, token_bytes
from distill.targets.spans import SpanTargets, merge_ends
from distill.targets.stored import StoredTopK, top_k
from distill.training.dataset import TeacherTargets, encode_samples

STUDENT = tiny.tokenizer()
LINES = " What people\n\n  like\nis honey. "
ROW = tiny.weighted("honey", "What people like is honey.", 1.0)
ONLINE = {"kind": "online", "teacher": "base", "batch_tokens": 64, "layers": None, "score_without_prompt": False}


@pytest.fixture(params=FEW_SHOT)
def teacher(request):
    return FEW_SHOT[request.param]


def span_targets_of_row(teacher, row=ROW) -> tuple[torch.Tensor, list[int], SpanTargets]:
    """Log-probabilities of a base model for a row's answer [tokens, vocab], the answer's ids, what a student learns."""
    example = encode(teacher, row)
    model = tiny.model(len(teacher))
    with torch.no_grad():
        logits = model(torch.tensor([[*example.prompt, *example.response]])).logits[0, len(example.prompt) - 1 : -1]
    rows = top_k(logits, len(teacher))
    exact = replace(rows, log_probs=logits.log_softmax(-1).gather(1, rows.ids.long()))
    (sample,) = encode_samples([row], STUDENT, 256, TeacherTargets(teacher, {row["id"]: exact}, {}))
    assert isinstance(sample.targets, SpanTargets)
    return logits.log_softmax(-1), example.response, sample.targets


@pytest.mark.parametrize("text", ["What people like is honey.", "Bees\nmake honey.", LINES])
def test_responses_follow_the_prompt_of_the_template(teacher, text):
    messages = [{"role": "user", "content": "What is honey?"}]
    written = teacher.apply_chat_template([*messages, {"role": "assistant", "content": text}], tokenize=False)
    ids = [*prompt_ids(teacher, messages), *response_ids(teacher, text, False)]
    full_ids = teacher(written.removesuffix(few_shot.STOP), add_special_tokens=False).input_ids
    assert ids == full_ids
    stop = teacher(few_shot.STOP, add_special_tokens=False).input_ids[0]
    assert response_ids(teacher, text, True) == [*response_ids(teacher, text, False), stop]


def test_a_tokenizer_that_joins_prompt_and_response_is_refused():
    class Joining:
        name_or_path = "joining"

        def __call__(self, text, **ignored):
            return type("Encoded", (), {"input_ids": [len(text)]})

    with pytest.raises(UserError, match="makes one token of the end of 'Answer:'"):
        few_shot.response_ids(Joining(), "So.", True)


@pytest.mark.parametrize("late", [0, 1])
def test_span_texts_multiply_to_the_response(teacher, late, monkeypatch):
    """The chain rule over plain log-probabilities; `late` is a planted fault, by so many tokens of the teacher."""

    def spans(*arguments):
        first, *others = response_spans(*arguments)
        return [replace(first, teacher=(first.teacher[0] + late, first.teacher[1])), *others]

    monkeypatch.setattr(targets_spans, "response_spans", spans)
    log_probs, ids, targets = span_targets_of_row(teacher)
    response_log_probs = log_probs[torch.arange(len(ids)), torch.tensor(ids)]
    ends = few_shot.end_tokens(teacher, token_bytes(teacher).tokens)
    expected = float(response_log_probs[:-1].sum() + log_probs[-1, ends].logsumexp(-1))
    actual = float(targets.text[targets.length > 0].sum())
    assert (abs(actual - expected) < 1e-2) == (late == 0)
    assert targets.known.all(), "a token of the student has no target"
    assert targets.length.sum() == len(response_ids(STUDENT, ROW["response"], True))


def test_all_ends_of_the_teacher_are_the_end_of_turn(teacher):
    log_probs, _, targets = span_targets_of_row(teacher)
    ends = few_shot.end_tokens(teacher, token_bytes(teacher).tokens)
    assert teacher.eos_token_id in ends
    assert targets.length[-1] == 1
    assert targets.text[-1].item() == pytest.approx(log_probs[-1, ends].logsumexp(-1).item(), abs=1e-3)
    inside = (targets.ids[:-1] == STUDENT.eos_token_id) & torch.isfinite(targets.log_probs[:-1])
    starts = [position for position in range(len(targets.length) - 1) if targets.length[position] > 0]
    assert inside.sum(-1).tolist() == [int(position in starts) for position in range(len(targets.length) - 1)]
    assert targets.log_probs[0][inside[0]].item() == pytest.approx(log_probs[0, ends].logsumexp(-1).item(), abs=1e-3)


def test_masses_of_a_base_model_add_up_to_one(teacher):
    _, _, targets = span_targets_of_row(teacher)
    starts = targets.length > 0
    masses = targets.log_probs[starts].exp().sum(-1) + targets.text[starts].exp() + targets.tail[starts].exp()
    assert torch.allclose(masses, torch.ones(len(masses)), atol=1e-3)


def test_rows_without_stored_ends_are_unchanged():
    rows = StoredTopK(torch.tensor([[4, 5], [9, 4]]), torch.tensor([[0.5, 0.3], [0.6, 0.3]]).log(), torch.zeros(2))
    actual = merge_ends(rows, (3, 9), 3)
    assert actual.ids.tolist() == [[4, 5], [3, 4]]
    assert torch.equal(actual.log_probs, rows.log_probs)


def test_blank_lines_end_the_targets_before_them():
    _, _, targets = span_targets_of_row(
        FEW_SHOT["byte-level"], tiny.weighted("honey", "What people like\n\nis honey.", 1.0)
    )
    known = targets.known.tolist()
    assert known[0]
    assert known[-1]
    assert not all(known)


def few_shot_params(share: float = 0.0) -> dict:
    """The tiny experiment with targets of a base model beside its teacher."""
    tiny_teacher = tiny.params()["teachers"][0]
    other = tiny_teacher | {"name": "base", "model": "base", "chat_template": "few_shot", "prompt_fraction": share}
    return {
        "teachers": [tiny_teacher, other],
        "targets__teacher": "base",
        "train__distilled__loss__ce_weight": 0.5,
    }


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"targets": ONLINE}, "targets.kind: must be top_k for teacher 'base', a base model"),
        ({"targets__layers": [1]}, "targets.layers: must be null for teacher 'base'"),
        ({"init__teacher": "base"}, "init.teacher: must be a local teacher of `teachers` with its"),
        ({"targets__teacher": "nobody"}, "targets.teacher: must be a local teacher of `teachers`"),
    ],
)
def test_base_models_have_top_k_targets_only(changes, words):
    with pytest.raises(UserError, match=words):
        check_params(tiny.params(**(few_shot_params() | changes)))


@pytest.mark.slow
@pytest.mark.parametrize("share", [0.0, 1.0])
def test_a_student_is_distilled_from_a_base_model(tmp_path, share):
    folder = tiny.repository(tmp_path, **few_shot_params(share))
    OTHER.save_pretrained(folder / "base")
    tiny.model(len(OTHER), layers=2, spread=0.05).save_pretrained(folder / "base")
    for name in ("generate", "clean", "targets", "weight", "init", "train distilled 7"):
        stage(folder, name)
    rows = [json.loads(line) for line in (folder / "data/weighted/train.jsonl").read_text().splitlines()]
    assert {row["teacher"] for row in rows} == ({"tiny", "base"} if share else {"tiny"})
    manifest = json.loads((folder / "data/targets/manifest.json").read_text())
    teacher = FEW_SHOT["byte-level"]
    assert manifest["source"]["tokenizer"] == tokenizers.fingerprint(teacher)
    assert {row["id"]: len(encode(teacher, row).response) for row in rows} == {
        key: length for key, (_, _, length) in manifest["samples"].items()
    }
    names = ("init", "train/distilled-7")
    before, after = (json.loads((folder / f"metrics/{name}.json").read_text()) for name in names)
    assert after["validation_loss"] < before["validation_loss"]
    card = (folder / "models/distilled-7/README.md").read_text()
    assert ("its probabilities" in card) == (not share), "a source of which it has answers is listed with these"


@pytest.mark.slow
def test_a_student_of_another_tokenizer_is_distilled(tmp_path):
    folder = tiny.repository(
        tmp_path, init={"source": "pretrained", "model": "other", "revision": None, "license": None}
    )
    OTHER.save_pretrained(folder / "other")
    tiny.model(len(OTHER), layers=2, spread=0.05).save_pretrained(folder / "other")
    for name in ("generate", "clean", "targets", "weight", "init", "train distilled 7"):
        stage(folder, name)
    names = ("init", "train/distilled-7")
    before, after = (json.loads((folder / f"metrics/{name}.json").read_text()) for name in names)
    assert after["loss"] == "forward_kl"
    assert after["validation_loss"] < before["validation_loss"]
