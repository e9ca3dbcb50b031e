"""Our model behind lm-eval's interface: the prompts, scores and decoding of training."""

import pytest
import tiny
from held_out_rows import ROWS, documents
from lm_eval.api.instance import Instance

from distill.evaluation.lm_eval_model import DistillLM, token_positions
from distill.modeling.chat import encode
from distill.modeling.decoding import decode
from distill.modeling.sampling import Sampling
from distill.modeling.scoring import score_examples
from distill.modeling.templates import render


def lm_of(model, tokenizer, max_new_tokens: int = 5) -> DistillLM:
    return DistillLM(model, tokenizer, batch_tokens=200, max_new_tokens=max_new_tokens, generation_batch_size=2)


def loglikelihoods(pairs: list[tuple[str, str]]) -> list[Instance]:
    return [Instance("loglikelihood", {}, pair, number) for number, pair in enumerate(pairs)]


def generations(prompts: list[str]) -> list[Instance]:
    return [Instance("generate_until", {}, (prompt, {}), number) for number, prompt in enumerate(prompts)]


def test_positions_tell_the_tokens_of_one_character_apart(tokenizer):
    ids, positions = token_positions(tokenizer, "a😀b")
    assert len(ids) == len(positions) == len(set(positions))
    assert tokenizer.decode(ids) == "a😀b"


def test_a_repeated_request_is_scored_once_and_its_prompt_read_once(model, tokenizer):
    pairs = [("What is", " honey?"), ("What is", " glass?"), ("What is", " honey?")]
    shapes = []
    hook = model.model.layers[0].register_forward_pre_hook(lambda _, inputs: shapes.append(inputs[0].shape[:2]))
    scored = DistillLM(model, tokenizer, batch_tokens=1, max_new_tokens=8).loglikelihood(loglikelihoods(pairs))
    hook.remove()
    prompt, *responses = (len(tokenizer(text).input_ids) for text in ("What is", " honey?", " glass?"))
    assert shapes == [(1, prompt - 1), (2, max(responses))]
    assert scored[0] == scored[2] != scored[1]
    assert scored[0].top1_positions == scored[2].top1_positions


def test_prompts_have_one_bos_where_the_tokenizer_adds_its_own(model):
    tokenizer = tiny.tokenizer_with_bos()
    lm = lm_of(model, tokenizer)
    docs = documents(tokenizer, tokenizer, ROWS)
    examples = [encode(tokenizer, row) for row in ROWS]
    expected = dict(score_examples(model, examples, 1000))
    scored = lm.loglikelihood(loglikelihoods([(doc["prompt"], doc["continuation"]) for doc in docs]))
    for index, (nats, _) in enumerate(scored):
        assert nats == pytest.approx(sum(expected[index].log_probs), abs=1e-3)
    lm.greedy_prefixes.clear()
    greedy = Sampling(max_tokens=5, temperature=0.0, top_p=1.0, seed=0)
    decoded = decode(model, [example.prompt for example in examples], [0] * len(ROWS), tokenizer.eos_token_id, greedy)
    generated = lm.generate_until(generations([doc["prompt"] for doc in docs]))
    assert generated == [tokenizer.decode(tokens).strip() for tokens, _ in decoded]


def test_a_generated_text_has_its_length_and_whether_it_ended(tokenizer):
    lm = lm_of(tiny.teacher(), tokenizer, max_new_tokens=64)
    prompt = render(tokenizer, [{"role": "user", "content": "What is ants?"}])
    [complete] = lm.generate_until(generations([prompt]))
    assert complete == "ants is what people like."
    assert (complete.ended, complete.tokens) == (True, len(tokenizer(complete).input_ids) + 1)
    lm.max_new_tokens = 3
    [truncated] = lm.generate_until(generations([prompt]))
    assert (truncated.ended, truncated.tokens) == (False, 3)


@pytest.mark.parametrize("max_new_tokens", [4, 64])
def test_a_scored_continuation_saves_decoding_and_changes_no_response(tokenizer, max_new_tokens):
    teacher = tiny.teacher()
    prompts = [render(tokenizer, [{"role": "user", "content": f"What is {topic}?"}]) for topic in tiny.TOPICS[:3]]
    end = tokenizer.decode([tokenizer.eos_token_id])
    drafts = [f"{tiny.TOPICS[0]} is what people like.{end}", f"{tiny.TOPICS[1]} is what nobody likes.", "Tell"]
    plain, scored = (
        DistillLM(teacher, tokenizer, batch_tokens=200, max_new_tokens=max_new_tokens, generation_batch_size=8)
        for _ in range(2)
    )
    scored.loglikelihood(loglikelihoods(list(zip(prompts, drafts, strict=True))))
    assert [len(scored.greedy_prefixes[prompt]) > 2 for prompt in prompts] == [True, True, False]
    batch_sizes = []
    hook = teacher.model.layers[0].register_forward_pre_hook(lambda _, inputs: batch_sizes.append(len(inputs[0])))
    generated = scored.generate_until(generations(prompts))
    hook.remove()
    assert max(batch_sizes) == (1 if max_new_tokens == 4 else 2), "a complete response was decoded again"
    expected = plain.generate_until(generations(prompts))
    assert generated == expected
    assert [(text.tokens, text.ended) for text in generated] == [(text.tokens, text.ended) for text in expected]
