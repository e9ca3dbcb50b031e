import pytest
import tiny
from other_tokenizers import LLAMA, OTHER, PIECES, without_chat_template

from distill.core.errors import UserError
from distill.modeling import chat, templates
from distill.modeling.encoding import TEXT_MARK, spans_after, text_ids, text_spans

MESSAGES = [{"role": "user", "content": "What are bees?"}]


@pytest.fixture(scope="module")
def tokenizer():
    return tiny.tokenizer()


def row(response: str, finish: str = "stop") -> dict:
    return {"id": "a", "messages": MESSAGES, "response": response, "finish_reason": finish}


def test_the_prompt_is_the_rendered_template_ready_for_the_answer(tokenizer):
    text = "<|im_start|>user\nWhat are bees?<|im_end|>\n<|im_start|>assistant\n"
    assert templates.render(tokenizer, MESSAGES) == text
    assert tokenizer.decode(chat.prompt_ids(tokenizer, MESSAGES)) == text


def test_every_message_is_in_the_prompt_in_its_turn(tokenizer):
    turns = [("system", "Be short."), ("user", "What are bees?"), ("assistant", "Insects."), ("user", "And ants?")]
    text = "".join(f"<|im_start|>{role}\n{content}<|im_end|>\n" for role, content in turns)
    messages = [{"role": role, "content": content} for role, content in turns]
    assert tokenizer.decode(chat.prompt_ids(tokenizer, messages)) == f"{text}<|im_start|>assistant\n"


def test_exactly_one_end_of_turn_is_learnt_though_padding_is_the_same_token(tokenizer):
    assert tokenizer.pad_token_id == tokenizer.eos_token_id == chat.end_of_turn(tokenizer)
    assert chat.encode(tokenizer, row("Bees fly.")).response.count(tokenizer.eos_token_id) == 1
    assert chat.encode(tokenizer, row("Bees fly.")).response[-1] == tokenizer.eos_token_id


@pytest.mark.parametrize("finish", ["stop", "length"])
def test_an_end_of_turn_that_the_teacher_spells_out_is_text_and_not_an_end(tokenizer, finish):
    said = "It ends with <|im_end|> there, <|endoftext|> here."
    ids = chat.encode(tokenizer, row(said, finish)).response
    assert ids.count(tokenizer.eos_token_id) == (finish == "stop")
    assert tokenizer.decode(ids) == said + "<|im_end|>" * (finish == "stop")
    assert not {tokenizer.convert_tokens_to_ids(name) for name in ("<|im_end|>", "<|endoftext|>")} & set(ids[:-1])


def test_a_truncated_response_has_no_end_of_turn(tokenizer):
    assert tokenizer.eos_token_id not in chat.encode(tokenizer, row("Bees fly.", "length")).response


def test_prompt_and_response_together_are_the_template_of_the_whole_conversation(tokenizer):
    whole = [*MESSAGES, {"role": "assistant", "content": "Bees fly."}]
    example = chat.encode(tokenizer, row("Bees fly."))
    rendered = tokenizer.apply_chat_template(whole, tokenize=False)
    assert tokenizer.decode(example.prompt + example.response) == rendered.rstrip("\n")


def test_there_is_at_most_one_bos_even_where_the_tokenizer_adds_its_own():
    tokenizer = tiny.tokenizer_with_bos()
    tokenizer.chat_template = "{{ bos_token }}{% for message in messages %}{{ message['content'] }}{% endfor %}"
    assert tokenizer("hi").input_ids.count(tokenizer.bos_token_id) == 1
    assert chat.prompt_ids(tokenizer, MESSAGES).count(tokenizer.bos_token_id) == 1
    assert tokenizer.bos_token_id not in chat.response_ids(tokenizer, "hi", ended=False)


def test_of_a_long_prompt_the_end_is_kept_and_of_a_long_response_the_beginning(tokenizer):
    whole = chat.encode(tokenizer, row("Bees fly from flower to flower."))
    cut = chat.encode(tokenizer, row("Bees fly from flower to flower."), max_length=len(whole.response) + 5)
    assert cut.response == whole.response
    assert cut.prompt == whole.prompt[-5:]
    short = chat.encode(tokenizer, row("Bees fly from flower to flower."), max_length=6)
    assert short.response == whole.response[:5]
    assert short.prompt == whole.prompt[-1:]


def test_a_tokenizer_without_a_template_is_refused():
    tokenizer = tiny.tokenizer()
    tokenizer.chat_template = None
    with pytest.raises(UserError, match="has no chat template"):
        templates.render(tokenizer, MESSAGES)


def test_the_end_of_turn_is_the_templates_own_and_not_the_tokenizers_end_of_text():
    tokenizer = tiny.tokenizer()
    tokenizer.eos_token = "<|endoftext|>"
    assert chat.end_of_turn(tokenizer) == tokenizer.convert_tokens_to_ids("<|im_end|>")


ZEPHYR = (  # its headers are plain text and end with a line end, after which no tokenizer writes a space
    "{% for message in messages %}<|{{ message.role }}|>\n{{ message.content }}</s>\n{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>\n{% endif %}"
)
TINY = tiny.TEMPLATE.replace("<|im_end|>", "</s>")
RESPONSES = ["What is honey?", "honey", "the quick brown fox", "\U0001f600 bees", "1. ants\n2. bees", "(yes)", "x"]


def with_template(tokenizer, template):
    result = without_chat_template(tokenizer)
    result.chat_template = template
    return result


@pytest.mark.parametrize("response", RESPONSES)
@pytest.mark.parametrize(
    ("tokenizer", "template"),
    [
        (PIECES, LLAMA),
        (PIECES, ZEPHYR),
        (PIECES, TINY),
        (OTHER, OTHER.chat_template),
        (tiny.tokenizer(), tiny.TEMPLATE),
    ],
    ids=["llama", "zephyr", "sentencepiece", "byte-level", "tiny"],
)
def test_prompt_and_response_are_the_tokens_of_the_conversation(tokenizer, template, response):
    tokenizer = with_template(tokenizer, template)
    example = chat.encode(tokenizer, row(response))
    whole = tokenizer.apply_chat_template([*MESSAGES, {"role": "assistant", "content": response}], tokenize=False)
    ids = tokenizer(whole, add_special_tokens=False).input_ids
    assert ids[: len(example.prompt + example.response)] == example.prompt + example.response


def test_a_first_word_has_a_space_only_where_the_template_writes_one():
    first = {
        name: with_template(PIECES, template).convert_ids_to_tokens(
            chat.response_ids(with_template(PIECES, template), "What is honey?", ended=True)
        )[0]
        for name, template in (("llama", LLAMA), ("zephyr", ZEPHYR))
    }
    assert first["llama"].startswith("\u2581")
    assert not first["zephyr"].startswith("\u2581")


@pytest.mark.parametrize("tokenizer", [tiny.tokenizer(), OTHER, PIECES], ids=["tiny", "byte-level", "sentencepiece"])
def test_a_special_token_that_a_user_writes_is_text(tokenizer):
    end = chat.end_of_turn(tokenizer)
    name = tokenizer.decode([end])
    messages = [{"role": "user", "content": f"What does {name} mean? {name}{name}"}]
    plain = [{"role": "user", "content": "What does it mean?"}]
    ids = chat.prompt_ids(tokenizer, messages)
    assert ids.count(end) == chat.prompt_ids(tokenizer, plain).count(end)
    rendered = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    assert "".join(tokenizer.decode(ids).split()) == "".join(rendered.split())
    assert ids[:3] == chat.prompt_ids(tokenizer, plain)[:3]
    assert ids[-3:] == chat.prompt_ids(tokenizer, plain)[-3:]


def test_spans_of_a_marked_text_are_counted_without_marks(tokenizer):
    text = "<|im_start|>a <|im_end|> b"
    marked = text.replace("<|im_end|>", f"<{TEXT_MARK}|im_end|>")
    ids, spans = text_spans(tokenizer, marked)
    assert "".join(text[start:end] for start, end in spans) == text
    assert spans[0] == (0, len("<|im_start|>"))
    assert tokenizer.convert_tokens_to_ids("<|im_end|>") not in ids
    assert text_ids(tokenizer, text) == tokenizer(text, add_special_tokens=False).input_ids


def test_spans_after_a_text_begin_at_zero():
    ids, spans = spans_after(PIECES, " [/INST]", " What is honey?")
    assert spans[0][0] == 0
    assert spans[-1][1] == len(" What is honey?")
    assert len(ids) == len(spans)


def test_a_template_that_prints_today_prints_the_same_date_on_each_day(tokenizer):
    dated = with_template(tokenizer, "{{ strftime_now('%d %b %Y') }} " + tiny.TEMPLATE)
    assert templates.render(dated, MESSAGES).startswith("26 Jul 2024 ")
    assert chat.response_ids(dated, "Bees fly.", ended=True) == chat.response_ids(tokenizer, "Bees fly.", ended=True)


@pytest.mark.parametrize(
    "template",
    ["{{ raise_exception('no system') }}", "{{ 1 / 0 }}", "{{ nothing.at.all }}", "{% for", "{{ messages + 1 }}",
     "{% macro again() %}{{ again() }}{% endmacro %}{{ again() }}", "{{ range(10 ** 9) }}",
     "{{ ''.__class__ }}x{{ y() }}"],
)  # fmt: skip
def test_whatever_a_template_throws_is_one_message(tokenizer, template):
    with pytest.raises(UserError, match=r"chat template of .* must render every conversation, got"):
        templates.render(with_template(tokenizer, template), MESSAGES)


def test_a_token_of_the_template_that_is_not_special_is_text_only_for_users(tokenizer):
    thinking = with_template(tiny.tokenizer(), "{# <think> #}" + tiny.TEMPLATE)
    thinking.add_tokens(["<think>"])
    think = thinking.convert_tokens_to_ids("<think>")
    assert think not in chat.prompt_ids(thinking, [{"role": "user", "content": "What is <think>?"}])
    assert think in chat.prompt_ids(
        thinking, [*MESSAGES, {"role": "assistant", "content": "<think>x"}, {"role": "user", "content": "go on"}]
    )
    assert chat.response_ids(thinking, "<think>Bees</think>", ended=True)[0] == think
