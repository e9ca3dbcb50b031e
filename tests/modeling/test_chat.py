import pytest
import tiny

from distill.core.errors import UserError
from distill.modeling import chat

MESSAGES = [{"role": "user", "content": "What are bees?"}]


@pytest.fixture(scope="module")
def tokenizer():
    return tiny.tokenizer()


def row(response: str, finish: str = "stop") -> dict:
    return {"id": "a", "messages": MESSAGES, "response": response, "finish_reason": finish}


def test_the_prompt_is_the_rendered_template_ready_for_the_answer(tokenizer):
    text = "<|im_start|>user\nWhat are bees?<|im_end|>\n<|im_start|>assistant\n"
    assert chat.render(tokenizer, MESSAGES) == text
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
        chat.render(tokenizer, MESSAGES)


def test_the_end_of_turn_is_the_templates_own_and_not_the_tokenizers_end_of_text():
    tokenizer = tiny.tokenizer()
    tokenizer.eos_token = "<|endoftext|>"
    assert chat.end_of_turn(tokenizer) == tokenizer.convert_tokens_to_ids("<|im_end|>")
