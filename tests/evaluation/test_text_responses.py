"""Text responses through lm-eval's tasks: documents, items, and the end of turn, which is no text."""

import lm_eval
import pandas as pd
import pytest
from held_out_rows import ROWS, documents, row

from distill.core.errors import UserError
from distill.evaluation.lm_eval_model import DistillLM, token_positions
from distill.evaluation.tasks import scores as task_scores
from distill.evaluation.text_responses import text_items
from distill.modeling.chat import encode
from distill.modeling.scoring import score_examples
from distill.modeling.templates import render
from distill.students.vocabulary import select_tokens, trim_tokenizer


def items(model, tokenizer, rows: list[dict], generation_ids: set[str]) -> list[dict]:
    lm = DistillLM(model, tokenizer, batch_tokens=200, max_new_tokens=5, generation_batch_size=2)
    return text_items(lm, documents(tokenizer, tokenizer, rows), generation_ids)


def test_a_document_has_the_prompt_and_response_of_training(tokenizer):
    for sample, doc in zip(ROWS, documents(tokenizer, tokenizer, ROWS), strict=True):
        example = encode(tokenizer, sample)
        assert doc["prompt"] == render(tokenizer, sample["messages"])
        assert tokenizer(doc["prompt"], add_special_tokens=False).input_ids == example.prompt
        assert token_positions(tokenizer, doc["continuation"])[0] == example.response
        assert doc["choices"][0] == doc["continuation"]
        assert len(doc["teacher_tokens"]) == len(example.response)


def test_items_have_the_scores_of_the_model(model, tokenizer):
    measured = items(model, tokenizer, ROWS, {"r1", "r2"})
    table = pd.DataFrame(measured)
    assert list(table["item"]) == ["r0", "r1", "r2", "r3"]
    expected = dict(score_examples(model, [encode(tokenizer, sample) for sample in ROWS], 1000))
    for index, item in enumerate(table.itertuples()):
        assert item.nll == pytest.approx(-sum(expected[index].log_probs), abs=1e-3)
        assert item.tokens == len(expected[index].log_probs)
        assert item.top1_tokens == sum(expected[index].ranked_first)
        assert item.correct in (0.0, 1.0)
        assert 0.25 <= item.confidence <= 1
    assert [item["ended"] for item in measured if "ended" in item] == [0.0, 0.0]  # a random model within 5 tokens
    assert table["rouge_l"].notna().tolist() == [False, True, True, False]


def test_bytes_are_those_of_the_response_without_its_end_of_turn(model, tokenizer):
    rows = [*ROWS[:3], row(3, "cut short") | {"finish_reason": "length"}]
    measured = items(model, tokenizer, rows, {"r0"})
    assert [item["bytes"] for item in measured] == [len(sample["response"].encode()) for sample in rows]


def test_rouge_l_of_the_response_itself_is_1(model, tokenizer, monkeypatch):
    """The end of turn `<|im_end|>` has the words `im` and `end`, which no generated text has."""
    monkeypatch.setattr(DistillLM, "_generated_text", lambda self, tokens, end: generated(ROWS[0]["response"]))
    [first, *_] = items(model, tokenizer, ROWS, {"r0"})
    assert first["generated"] == ROWS[0]["response"]
    assert first["rouge_l"] == 1


def generated(text: str):
    from distill.evaluation.lm_eval_model import GeneratedText

    result = GeneratedText(text)
    result.tokens, result.ended = len(text), True
    return result


class Top1(tuple):
    """A scored continuation whose every token is top-1."""

    def __new__(cls, positions):
        result = super().__new__(cls, (-1.0, True))
        result.top1_positions = frozenset(positions)
        return result


def test_a_trimmed_student_is_scored_per_teacher_token(tokenizer):
    """A token of the teacher that the student's vocabulary lacks never counts as top-1."""
    small = trim_tokenizer(tokenizer, select_tokens(tokenizer, {}, 290))
    docs = documents(small, tokenizer, ROWS)
    for doc, sample in zip(docs, ROWS, strict=True):
        assert len(doc["teacher_tokens"]) == len(encode(tokenizer, sample).response)
        positions = set(token_positions(small, doc["continuation"])[1])
        missing = [tuple(token) for token in doc["teacher_tokens"] if tuple(token) not in positions]
        assert missing, "the student has every token, so the case says nothing"
        scored = task_scores.text(doc, [Top1(positions)])
        assert scored["top1_tokens"][0] == len(doc["teacher_tokens"]) - len(missing)
        assert scored["nll"][1] == len(doc["teacher_tokens"])


def test_a_result_that_a_limit_truncated_is_refused(model, tokenizer, monkeypatch):
    real = lm_eval.evaluate
    monkeypatch.setattr("lm_eval.evaluate", lambda **options: real(limit=3, **options))
    with pytest.raises(UserError, match=r"all documents.*teacher_choice on 3 of 4"):
        items(model, tokenizer, ROWS, {"r1"})
