"""A base model as a teacher: how it is prompted, where its answer ends, and Gemma 3 270M where it is installed."""

import hashlib
import importlib.util

import pytest
import tiny
import torch
import yaml

from distill.core.errors import UserError
from distill.generation import local
from distill.generation.completions import Request
from distill.modeling import few_shot, loading
from distill.modeling.chat import prompt_ids
from distill.modeling.sampling import Sampling
from distill.modeling.templates import render
from distill.params import loading as params_loading
from distill.params import teachers
from tools import gemma

QUESTION = [{"role": "user", "content": "What is honey?"}]


@pytest.fixture
def tokenizer():
    own = tiny.tokenizer()
    own.chat_template = few_shot.TEMPLATE
    return own


def ids(tokenizer, text: str) -> list[int]:
    return tokenizer(text, add_special_tokens=False).input_ids


def test_a_base_model_reads_examples_and_then_the_question(tokenizer):
    text = render(tokenizer, [{"role": "system", "content": "Be brief."}, *QUESTION])
    assert text.startswith(f"{tokenizer.bos_token}Be brief.\n\nQuestion: What is the capital of France?\nAnswer: The")
    assert text.endswith("tells you the truth.\n\nQuestion: What is honey?\nAnswer:")
    assert text.count("Question:") == len(few_shot.SHOTS) + 1
    assert render(tokenizer, QUESTION).startswith(f"{tokenizer.bos_token}Question:")


def test_earlier_turns_and_blank_lines_keep_the_form_of_the_list(tokenizer):
    talk = [*QUESTION, {"role": "assistant", "content": "Food.\n\nOf bees."}, {"role": "user", "content": "A\n \nB"}]
    assert render(tokenizer, talk).endswith(
        "Question: What is honey?\nAnswer: Food.\nOf bees.\n\nQuestion: A\nB\nAnswer:"
    )


def test_a_special_token_that_an_answer_spells_out_is_text(tokenizer):
    found = few_shot.response_ids(tokenizer, "It is <|im_end|> there.", ended=False)
    assert tokenizer.decode(found) == " It is <|im_end|> there."
    assert tokenizer.convert_tokens_to_ids("<|im_end|>") not in found


@pytest.mark.parametrize(
    ("written", "text"),
    [
        (" Bees make it.\n\nQuestion: What", " Bees make it."),
        (" Bees\nmake it.\n\n\n", " Bees\nmake it."),
        ("\n\n", ""),
        (" Bees make it.<|im_end|> Que", " Bees make it."),
    ],
)
def test_an_answer_ends_before_the_next_question_or_at_the_end_of_text(tokenizer, written, text):
    tokens = ids(tokenizer, written)
    count, found = few_shot.finish(tokenizer, tokens)
    assert found == text
    assert count < len(tokens) or not written.endswith("What")
    assert few_shot.finish(tokenizer, tokens[: count - 1]) is None


def test_log_probabilities_end_where_the_answer_does(tokenizer):
    """A model that is certain to write a fixed text: the answer and its log-probabilities are those of its start."""
    text = ids(tokenizer, " Bees.\n\nQuestion: Why?")
    prompt = prompt_ids(tokenizer, QUESTION)

    class Certain(torch.nn.Module):
        config = tiny.model(len(tokenizer)).config
        device = torch.device("cpu")
        step = 0

        def forward(self, input_ids, **ignored):
            logits = torch.full((len(input_ids), 1, len(tokenizer)), -20.0)
            logits[:, :, text[self.step]] = 0.0
            self.step += 1
            return type("Out", (), {"logits": logits})

    sampling = Sampling(max_tokens=len(text), temperature=0.0, top_p=1.0, seed=0)
    ((answer,),) = local.complete(Certain(), tokenizer, [[Request("r", QUESTION, 0)]], sampling)
    assert answer.response == " Bees."
    assert answer.finish_reason == "stop"
    assert len(answer.logprobs) == few_shot.finish(tokenizer, text)[0] < len(text)
    assert answer.usage["prompt_tokens"] == len(prompt)


def test_parts_are_joined_whole_or_not_at_all(tmp_path):
    parts = [tmp_path / name for name in ("a", "b")]
    for part, content in zip(parts, (b"one", b"two"), strict=True):
        part.write_bytes(content)
    target = tmp_path / "joined"
    with pytest.raises(UserError, match="install them again"):
        gemma.join(parts, target, "0" * 64)
    assert not target.exists()
    gemma.join(parts, target, hashlib.sha256(b"onetwo").hexdigest())
    assert target.read_bytes() == b"onetwo"


def test_the_printed_teacher_is_one_that_params_take():
    value = tiny.params()
    value["teachers"] += yaml.safe_load(gemma.TEACHER)
    assert params_loading.check_params(value).teachers[1].chat_template == "few_shot"


@pytest.mark.timeout(1200)  # its 262,144 tokens take a minute and a half to read, on one free processor
@pytest.mark.skipif(
    importlib.util.find_spec(gemma.PACKAGE) is None or not (gemma.data_folder(gemma.PACKAGE) / gemma.FILE).is_file(),
    reason="Gemma is opt-in: make gemma",
)
def test_gemma_answers_by_example_and_stops():
    teacher = teachers.LocalTeacher(**yaml.safe_load(gemma.TEACHER)[0])
    model, own = loading.load_teacher(teacher, torch.float32)
    messages = [{"role": "user", "content": "What is the capital of Italy?"}]
    assert prompt_ids(own, messages).count(own.bos_token_id) == 1
    sampling = Sampling(max_tokens=24, temperature=0.0, top_p=1.0, seed=0)
    ((answer,),) = local.complete(model, own, [[Request("r", messages, 0)]], sampling)
    assert "Rome" in answer.response
    assert answer.finish_reason == "stop"
    assert "Question" not in answer.response
