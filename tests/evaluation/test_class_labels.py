"""Class labels on held-out rows: the label that a model picks, compared with the right one and the teacher's."""

import math

import pytest
import tiny
import torch

from distill.evaluation.class_labels import ClassLabelTask, class_label_items
from distill.evaluation.held_out import HeldOut

LABELS = ["is", "is what", "people"]
MESSAGES = [{"role": "user", "content": "What is ants?"}]


def log_likelihoods(model, tokenizer) -> list[float]:
    """Each label's log-likelihood by a forward pass of its own: its tokens, then the end of turn."""
    prompt = tokenizer.apply_chat_template(MESSAGES, add_generation_prompt=True, return_dict=False)
    sums = []
    for label in LABELS:
        ids = [*tokenizer(label).input_ids, tokenizer.eos_token_id]
        with torch.inference_mode():
            log_probs = model(torch.tensor([prompt + ids])).logits[0].log_softmax(-1)
        sums.append(sum(float(log_probs[len(prompt) - 1 + index, token]) for index, token in enumerate(ids)))
    return sums


def row(response: str, **label: str) -> dict:
    return tiny.weighted("ants", response, 1.0) | {"messages": MESSAGES} | label


def test_the_prompts_own_label_is_right_where_there_is_one(model, tokenizer):
    sums = log_likelihoods(model, tokenizer)
    best = LABELS[sums.index(max(sums))]
    other = next(label for label in LABELS if label != best)
    own, teachers = class_label_items(model, tokenizer, [row(other, label=best), row(other)], LABELS, 256)
    assert (own["correct"], own["top1_tokens"], own["picked"], own["label"]) == (1.0, 0, best, best)
    assert (teachers["correct"], teachers["top1_tokens"], teachers["label"]) == (0.0, 0, other)
    assert teachers["picked"] == best
    probabilities = torch.tensor(sums).softmax(0)
    assert own["confidence"] == pytest.approx(float(probabilities.max()), abs=1e-5)
    assert own["nll"] == pytest.approx(-math.log(probabilities[LABELS.index(other)]), abs=1e-4)


def test_chance_is_one_in_the_number_of_labels():
    assert ClassLabelTask(HeldOut([], [], frozenset()), LABELS, 256).chance == 1 / 3
