"""Class labels: full token sequences, normalised over the set, learnt and measured as a classifier."""

import json
import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import tiny
import torch
from forks import stage
from repositories import divergence, stage_command, stop_command

from distill.core.errors import UserError
from distill.generation.class_labels import complete as complete_class_labels
from distill.generation.completions import Completion, Request
from distill.generation.prompts import check_labels
from distill.losses.class_labels import class_label_loss
from distill.losses.divergences import DIVERGENCES
from distill.losses.logit_loss import CROSS_ENTROPY, LossSettings
from distill.modeling import class_labels as modeling_class_labels
from distill.modeling import loading
from distill.modeling.chat import end_of_turn
from distill.params.loading import check_params
from distill.training.class_labels import batch_loss, collate_class_labels, encode_class_samples
from distill.training.dataset import ClassTargets
from distill.training.trainer import DistillTrainer, Objective

SET = ["is", "is what", "people"]
BY_FORM = ["ants is", "Tell me", "People like"]  # how the tiny teacher begins its answers to the three forms


BASE = tiny.params()["teachers"][0] | {"chat_template": "few_shot"}  # a teacher without a chat template


def asked(topic: str, form: str = "What is {}?") -> list[dict[str, str]]:
    return [{"role": "user", "content": form.format(topic)}]


def settings(kind: str = "forward_kl", ce_weight: float = 0.0, temperature: float = 1.0) -> LossSettings:
    if kind == "cross_entropy":
        return CROSS_ENTROPY
    return LossSettings(kind, ce_weight, temperature, 0.5)


@pytest.fixture(scope="module")
def tokenizer():
    return tiny.tokenizer()


@pytest.fixture(scope="module")
def model():
    return tiny.model(len(tiny.tokenizer()))


def by_hand(model, tokenizer, messages) -> list[float]:
    """Each label's log-likelihood from a pass of its own: its tokens, then the end of the turn."""
    found = []
    for label in SET:
        prompt = tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_dict=False)
        ids = [*tokenizer(label).input_ids, tokenizer.eos_token_id]
        with torch.inference_mode():
            rows = model(torch.tensor([prompt + ids])).logits[0].log_softmax(-1)
        found.append(sum(float(rows[len(prompt) - 1 + place, token]) for place, token in enumerate(ids)))
    return found


def test_a_label_counts_with_all_tokens_and_the_end_of_turn(model, tokenizer):
    assert [ids[-1] for ids in modeling_class_labels.encode_labels(tokenizer, SET)] == [end_of_turn(tokenizer)] * 3
    prompts = [asked("ants"), asked("lakes", "Why do people like {} so much?")]
    sums, normalised = modeling_class_labels.label_log_probs(model, tokenizer, prompts, SET, 256)
    for row, messages in enumerate(prompts):
        assert sums[row] == pytest.approx(by_hand(model, tokenizer, messages), abs=1e-4)
    assert np.exp(normalised).sum(-1) == pytest.approx([1, 1])
    assert np.diff(normalised, axis=-1) == pytest.approx(np.diff(sums, axis=-1))


def test_a_label_that_begins_another_is_another_label(model, tokenizer):
    """`is` alone is worth P(is) x P(end | is), not P(is), of which `is what` is a part."""
    first, second, _ = modeling_class_labels.encode_labels(tokenizer, SET)
    assert second[: len(first) - 1] == first[:-1], "the labels of this test share no beginning"
    sums, _ = modeling_class_labels.label_log_probs(model, tokenizer, [asked("ants")], SET, 256)
    assert math.exp(sums[0, 0]) + math.exp(sums[0, 1]) < 1


def test_a_response_is_the_likeliest_label_with_all_log_probs(model, tokenizer):
    requests = [Request(topic, asked(topic), 0) for topic in ("ants", "lakes", "maple")]
    (answers,) = complete_class_labels(model, tokenizer, [requests], SET)
    for request, answer in zip(requests, answers, strict=True):
        sums = by_hand(model, tokenizer, request.messages)
        assert answer.response == SET[sums.index(max(sums))]
        assert sum(map(math.exp, answer.label_log_probs)) == pytest.approx(1, abs=1e-5)
        assert sum(answer.logprobs) == pytest.approx(max(sums), abs=1e-3)
        best, second = sorted(answer.label_log_probs, reverse=True)[:2]
        assert answer.margins == [pytest.approx(best - second, abs=1e-4)]
        assert answer.entropies == [pytest.approx(-sum(math.exp(p) * p for p in answer.label_log_probs), abs=1e-4)]
        assert Completion.from_json(vars(answer)) == answer
    old = {name: value for name, value in vars(answers[0]).items() if name != "label_log_probs"}
    assert Completion.from_json(old).label_log_probs is None  # a line of a journal from before there were labels


def over(student: list[list[float]], teacher: list[list[float]], how: LossSettings, weights=(1.0,)) -> float:
    chosen = torch.tensor(teacher).argmax(-1)
    return float(class_label_loss(torch.tensor(student), torch.tensor(teacher), chosen, torch.tensor(weights), how))


@pytest.mark.parametrize("loss", list(DIVERGENCES))
@pytest.mark.parametrize("temperature", [1.0, 2.0])
def test_a_divergence_is_0_only_where_student_equals_teacher(loss, temperature):
    teacher = [[math.log(0.7), math.log(0.2), math.log(0.1)]]
    shifted = [[value - 40 for value in teacher[0]]]  # what the labels have of all that might be written is no matter
    assert over(shifted, teacher, settings(loss, temperature=temperature)) == pytest.approx(0, abs=1e-5)
    assert over([[0.0, 0.0, 0.0]], teacher, settings(loss, temperature=temperature)) > 0.01


def test_the_losses_have_their_closed_forms():
    teacher, student = [[math.log(0.8), math.log(0.2)]], [[math.log(0.5), math.log(0.5)]]
    forward = 0.8 * math.log(0.8 / 0.5) + 0.2 * math.log(0.2 / 0.5)
    reverse = 0.5 * math.log(0.5 / 0.8) + 0.5 * math.log(0.5 / 0.2)
    assert over(student, teacher, settings()) == pytest.approx(forward, abs=1e-6)
    assert over(student, teacher, settings("reverse_kl")) == pytest.approx(reverse, abs=1e-6)
    assert over(student, teacher, settings("cross_entropy")) == pytest.approx(math.log(2), abs=1e-6)
    assert over(student, teacher, settings(ce_weight=0.25)) == pytest.approx(
        0.25 * math.log(2) + 0.75 * forward, abs=1e-6
    )
    assert over(student * 2, teacher * 2, settings(), (1.0, 3.0)) == pytest.approx(4 * forward, abs=1e-6)
    soft = 1 / (1 + 0.25**0.5)  # P at temperature 2
    tempered = 4 * (soft * math.log(soft / 0.5) + (1 - soft) * math.log((1 - soft) / 0.5))
    assert over(student, teacher, settings(temperature=2.0)) == pytest.approx(tempered, abs=1e-5)


def row(topic: str, chosen: int, weight: float = 1.0, **changes) -> dict:
    spread = [-3.0, -3.0, -3.0]
    spread[chosen] = math.log(1 - 2 * math.exp(-3))
    return tiny.weighted(topic, SET[chosen], weight) | {"label_log_probs": spread} | changes


def trainer(model, how: LossSettings) -> DistillTrainer:
    from transformers import TrainingArguments

    return DistillTrainer(
        Objective(how), torch.float32, model=model, args=TrainingArguments(use_cpu=True, report_to="none")
    )


def test_padding_leaves_the_loss_of_a_batch_as_it_is(tokenizer):
    model = tiny.model(len(tokenizer))
    long = asked("bread", "Tell me more about {}, please. Why do people like it so much?")
    rows = [row("ants", 0, 0.5), row("bread", 2, 2.0, messages=long), row("lakes", 1)]
    found = encode_class_samples(rows, tokenizer, SET, 128)
    for how in (settings(), settings("jsd"), settings("cross_entropy")):
        own = trainer(model, how)
        divisor = torch.tensor(3.5)
        together = own.compute_loss(model, collate_class_labels(found), num_items_in_batch=divisor)
        assert own._get_num_items_in_batch([collate_class_labels(found)], torch.device("cpu")) == divisor
        apart = sum(own.compute_loss(model, collate_class_labels([one]), num_items_in_batch=divisor) for one in found)
        assert together.item() == pytest.approx(apart.item(), abs=1e-5)
    expected = 0.0
    for one in rows:
        sums = torch.tensor(by_hand(model, tokenizer, one["messages"])).log_softmax(0)
        expected += one["weight"] * -float(sums[SET.index(one["response"])])
    assert together.item() == pytest.approx(expected / 3.5, abs=1e-4)


def test_the_gradient_is_that_of_a_pass_for_each_label(tokenizer):
    """Prompts go through once for all labels: the gradient comes back to them through the cache, padding aside."""
    model = tiny.model(len(tokenizer))
    rows = [row("ants", 0, 0.5), row("bread", 2, 2.0, messages=asked("bread", "Tell me more about {}, please."))]
    batch = collate_class_labels(encode_class_samples(rows, tokenizer, SET, 128))
    names = ("class_log_probs", "class_labels", "weights")
    batch_loss(model, batch, settings()).backward()
    found = {name: part.grad.clone() for name, part in model.named_parameters()}
    model.zero_grad()
    sums = []
    for question in batch["candidates"]:
        for ids in question.continuations:
            logits = model(torch.tensor([question.prompt + ids])).logits[0, len(question.prompt) - 1 : -1]
            sums.append(logits.log_softmax(-1).gather(1, torch.tensor(ids)[:, None]).sum())
    student = torch.stack(sums).view(len(rows), len(SET))
    class_label_loss(student, *(batch[name] for name in names), settings()).backward()
    for name, part in model.named_parameters():
        assert part.grad.abs().max() > 0, name
        torch.testing.assert_close(found[name], part.grad, atol=1e-4, rtol=1e-3, msg=name)


def test_a_long_prompt_loses_its_beginning_and_no_label_tokens(tokenizer):
    (sample,) = encode_class_samples([row("ants", 1)], tokenizer, SET, 16)
    assert isinstance(sample.targets, ClassTargets)
    assert len(sample.prompt) + max(map(len, sample.targets.labels)) == 16
    assert sample.targets.labels == modeling_class_labels.encode_labels(tokenizer, SET)


def test_rows_of_other_labels_are_refused(tokenizer):
    for change in ({"response": "glass"}, {"label_log_probs": [-1.0]}, {"label_log_probs": None}):
        with pytest.raises(UserError, match=r"must have one of generate.class_labels"):
            encode_class_samples([row("ants", 0, **change)], tokenizer, SET, 64)


def test_all_prompts_or_none_have_right_labels_of_the_set():
    check_labels([{"id": "a"}, {"id": "b"}], SET)
    check_labels([{"id": "a", "label": "is"}], SET)
    with pytest.raises(UserError, match=r"label of prompt 'a' must be one of generate.class_labels .*, got 'was'"):
        check_labels([{"id": "a", "label": "was"}], SET)
    with pytest.raises(UserError, match=r"all prompts or none must have a `label`, got 1 of 2"):
        check_labels([{"id": "a", "label": "is"}, {"id": "b"}], SET)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"generate__class_labels": ["yes"]}, "generate.class_labels"),
        ({"generate__class_labels": ["yes", "yes"]}, "class_labels: must be different"),
        ({"generate__class_labels": ["yes", " no"]}, "generate.class_labels"),
        ({"generate__num_samples": 2}, "num_samples: must be 1 with class_labels"),
        ({"targets": tiny.params()["targets"]}, "targets: must be null"),
        (
            {"train__self_distillation": {"num_generations": 2, "start": "previous", "ema_decay": None}},
            "self_distillation must be null",
        ),
        (
            {"teachers": [BASE | {"chat_template": None}, BASE | {"name": "base"}]},
            "got ['base']; set their prompt_fraction to 0",
        ),
    ],
)
def test_params_that_exclude_class_labels_are_refused_by_name(changes, words):
    base = {"generate__class_labels": SET, "targets": None, "train__distilled__loss__tail": None}
    value = tiny.params(**(base | changes))
    with pytest.raises(UserError) as error:
        check_params(value)
    assert words in str(error.value)


STUDENTS = ("init", "train sft 7", "train distilled 7")


@pytest.fixture(scope="module")
def labelled(tmp_path_factory) -> Path:
    """The tiny experiment with labels, run stage by stage. The teacher picks the label of a prompt's form, which is the
    right label for two forms of three."""
    folder = tiny.repository(
        tmp_path_factory.mktemp("labels"),
        generate__class_labels=BY_FORM,
        targets=None,
        weight__confidence__measure="margin",
        init__layers=3,
        train__distilled__loss=divergence("jsd"),
        train__optimization__num_train_epochs=3,
        evaluate__max_samples=12,
    )
    place = folder / "data/prompts/tiny.jsonl"
    rows = [json.loads(line) for line in place.read_text().splitlines()]
    rows = [one | {"label": BY_FORM[max(int(one["id"][-1]), 1)]} for one in rows]
    place.write_text("".join(json.dumps(one) + "\n" for one in rows))
    for name in ("generate", "clean", "targets", "weight", *STUDENTS, "evaluate", "plot"):
        stage(folder, name)
    return folder


def lines(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_every_prompt_has_a_label_and_no_response_is_dropped(labelled):
    rows = lines(labelled / "data/raw/responses.jsonl")
    assert len(rows) == len(tiny.TOPICS) * len(tiny.FORMS)
    for one in rows:
        best = one["label_log_probs"].index(max(one["label_log_probs"]))
        assert (one["response"], one["finish_reason"], one["label"] in BY_FORM) == (BY_FORM[best], "stop", True)
    counts = json.loads((labelled / "metrics/clean.json").read_text())
    assert counts["requested"] == counts["kept"] + counts["dropped"] == len(rows)
    assert counts["kept"] == len(rows), "labels are equal and short, and no reason to drop a row"
    weighted = lines(labelled / "data/weighted/train.jsonl")
    assert len({one["weight"] for one in weighted}) > 1


def test_students_are_measured_and_reported_as_classifiers(labelled):
    scores = json.loads((labelled / "metrics/evaluate.json").read_text())
    table = json.loads((labelled / "metrics/metrics.json").read_text())
    items = pd.read_csv(labelled / "metrics/items.csv")
    for model in ("teacher", "init", "sft", "distilled"):
        own = items[items["model"] == model]
        found = scores["classification"][model]
        assert list(found) == ["accuracy", "macro_f1", "ece", "teacher_agreement"]
        assert found["accuracy"]["value"] == table[model]["accuracy"]
        assert found["accuracy"]["value"] == pytest.approx((own["picked"] == own["label"]).mean(), abs=1e-5)
        above_chance = (table[model]["accuracy"] - 1 / 3) * 1.5
        assert table[model]["accuracy_above_chance"] == pytest.approx(above_chance, abs=1e-4)
    assert scores["classification"]["teacher"]["teacher_agreement"]["value"] == 1
    assert table["teacher"]["accuracy"] == pytest.approx(2 / 3, abs=0.15), "not against the right labels"
    for model in ("sft", "distilled"):
        log = pd.read_csv(labelled / f"metrics/train/{model}-7_log.csv")
        losses_ = log[log["split"] == "validation"]["loss"].tolist()
        assert losses_[-1] < losses_[0]
    for name in ("report.md", "report.html"):
        assert "macro-F1" in (labelled / "metrics" / name).read_text()


def test_the_cards_example_gives_the_measured_probabilities(labelled):
    folder = labelled / "models/distilled-7"
    card = (folder / "README.md").read_text()
    code = card.partition("```python\n")[2].partition("```")[0].replace('folder = "."', f"folder = {str(folder)!r}")
    found: dict = {}
    exec(code, found)
    own, tokenizer = loading.load_model(str(folder), torch.float32)
    _, expected = modeling_class_labels.label_log_probs(own, tokenizer, [found["messages"]], BY_FORM, 256)
    assert list(found["probabilities"].values()) == pytest.approx(np.exp(expected[0]).tolist(), abs=1e-5)


@pytest.mark.slow
def test_a_killed_training_on_labels_resumes_to_the_same_bytes(labelled):
    model = labelled / "models/distilled-7/model.safetensors"
    before = model.read_bytes()
    stop_command(labelled, stage_command("train distilled 7"))
    model.unlink()
    assert "resuming from" in stage(labelled, "train distilled 7").stdout
    assert model.read_bytes() == before


def test_journaled_labels_are_not_queried_again(labelled):
    answers = labelled / "data/raw/responses.jsonl"
    before = answers.read_bytes()
    (journal,) = (labelled / ".distill/journal").iterdir()
    whole = journal.read_bytes()
    assert "are in the journal already" in stage(labelled, "generate").stderr
    journal.write_bytes(whole[: len(whole) // 2])  # as a kill leaves it, in the middle of a line
    stage(labelled, "generate")
    assert answers.read_bytes() == before
    assert sorted(journal.read_bytes().splitlines()) == sorted(whole.splitlines())
