from dataclasses import replace

import pytest
import torch

from distill.core.errors import UserError
from distill.generation import local
from distill.generation.completions import Request
from distill.modeling import chat, decoding
from distill.modeling.sampling import Sampling

GREEDY = Sampling(max_tokens=10, temperature=0.0, top_p=1.0, seed=3)


def requests(seed: int = 0) -> list[Request]:
    texts = ["What is honey?", "hi", "Tell me more about glass, please.", "Why do people like ants so much?"]
    return [Request(f"r{place}", [{"role": "user", "content": text}], seed + place) for place, text in enumerate(texts)]


def limits(rows: int, tokens: int = 10**9, new: int = 10) -> local.BatchLimits:
    return local.BatchLimits(rows, tokens, new)


def answers(model, tokenizer, size: int, sampling: Sampling = GREEDY, seed: int = 0) -> dict:
    batches = local.split_batches(tokenizer, requests(seed), limits(size))
    return {one.id: one for some in local.complete(model, tokenizer, batches, sampling) for one in some}


def test_greedy_answers_are_those_of_transformers_generate(model, tokenizer):
    for request in requests():
        ids = torch.tensor([chat.prompt_ids(tokenizer, request.messages)])
        new = model.generate(ids, attention_mask=torch.ones_like(ids), do_sample=False, max_new_tokens=10)[0]
        expected = tokenizer.decode(new[ids.shape[1] :], skip_special_tokens=True)
        assert answers(model, tokenizer, 1)[request.id].response == expected


def test_a_ragged_batch_answers_as_batches_of_one(model, tokenizer):
    alone, together = answers(model, tokenizer, 1), answers(model, tokenizer, 4)
    for name, answer in alone.items():
        assert together[name].response == answer.response
        assert together[name].logprobs == pytest.approx(answer.logprobs, abs=2e-4)


def test_rows_that_end_early_leave_the_batch_and_disturb_no_other(model, tokenizer):
    """An end that some rows meet and others do not: with it as the end, each row is a prefix of its free run."""
    prompts = [chat.prompt_ids(tokenizer, request.messages) for request in requests()]
    unused = len(tokenizer) - 1
    free = decoding.decode(model, prompts, [0] * 4, end=unused, sampling=GREEDY)
    assert all(len(tokens) == 10 for tokens, _ in free)
    end = free[0][0][3]
    stopped = decoding.decode(model, prompts, [0] * 4, end=end, sampling=GREEDY)
    lengths = set()
    for (tokens, _), (whole, _) in zip(stopped, free, strict=True):
        wanted = whole[: whole.index(end) + 1] if end in whole else whole
        assert tokens == wanted
        lengths.add(len(tokens))
    assert len(lengths) > 1


def test_the_end_of_turn_is_no_part_of_an_answers_text(model, tokenizer, monkeypatch):
    """Otherwise it would be learnt twice: response_ids adds one to what ended by itself."""
    prompt = chat.prompt_ids(tokenizer, requests()[0].messages)
    ((free, _),) = decoding.decode(model, [prompt], [0], end=len(tokenizer) - 1, sampling=GREEDY)
    end = free[3]
    monkeypatch.setattr(chat, "end_of_turn", lambda tokenizer: end)
    monkeypatch.setattr(chat, "OWN_TEMPLATE", replace(chat.OWN_TEMPLATE, stop_id=chat.end_of_turn))
    answer = answers(model, tokenizer, 1)["r0"]
    before = free[: free.index(end)]
    assert answer.finish_reason == "stop"
    assert answer.response == tokenizer.decode(before)
    assert answer.usage["completion_tokens"] == len(answer.logprobs) == len(before) + 1


def test_every_end_of_the_generation_config_ends_a_response(model, tokenizer, monkeypatch):
    prompt = chat.prompt_ids(tokenizer, requests()[0].messages)
    ((free, _),) = decoding.decode(model, [prompt], [0], end=len(tokenizer) - 1, sampling=GREEDY)
    end = free[3]
    monkeypatch.setattr(model.generation_config, "eos_token_id", [len(tokenizer) - 1, end])
    answer = answers(model, tokenizer, 1)["r0"]
    before = free[: free.index(end)]
    assert (answer.finish_reason, answer.response) == ("stop", tokenizer.decode(before))
    assert answer.usage["completion_tokens"] == len(before) + 1


def test_logits_of_nan_are_refused_and_nothing_is_answered(model, tokenizer, monkeypatch):
    monkeypatch.setattr(model.lm_head, "forward", lambda states: states.new_full((*states.shape[:2], 300), torch.nan))
    for sampling in (GREEDY, replace(GREEDY, temperature=1.0)):
        with pytest.raises(UserError, match="finite logits"):
            answers(model, tokenizer, 2, sampling)


def test_log_probabilities_are_the_models_at_temperature_1(model, tokenizer):
    answer = answers(model, tokenizer, 4, Sampling(max_tokens=6, temperature=2.0, top_p=1.0, seed=3))["r0"]
    prompt = chat.prompt_ids(tokenizer, requests()[0].messages)
    ((tokens, _),) = decoding.decode(model, [prompt], [requests()[0].seed], 2, Sampling(6, 2.0, 1.0, 3))
    logits = model(torch.tensor([prompt + tokens])).logits[0].log_softmax(-1)
    expected = [float(logits[len(prompt) - 1 + place, token]) for place, token in enumerate(tokens)]
    assert answer.logprobs == pytest.approx(expected, abs=2e-4)


def test_a_sampled_answer_depends_on_its_own_seed_and_not_on_its_neighbours(model, tokenizer):
    hot = Sampling(max_tokens=10, temperature=1.5, top_p=1.0, seed=3)
    together, alone = answers(model, tokenizer, 4, hot), answers(model, tokenizer, 1, hot)
    assert {name: one.response for name, one in together.items()} == {name: one.response for name, one in alone.items()}
    other = answers(model, tokenizer, 4, hot, seed=100)
    assert any(other[name].response != together[name].response for name in other)


def test_samples_follow_the_distribution_and_top_p_cuts_its_end():
    logits = torch.tensor([[0.5, 0.3, 0.15, 0.05]]).log().repeat(4000, 1)
    generators = [torch.Generator().manual_seed(number) for number in range(4000)]
    for top_p, wanted in ((1.0, [0.5, 0.3, 0.15, 0.05]), (0.7, [0.625, 0.375, 0, 0]), (0.4, [1, 0, 0, 0])):
        sampling = Sampling(max_tokens=1, temperature=1.0, top_p=top_p, seed=0)
        chosen = decoding._sample(logits, generators, sampling)
        shares = torch.bincount(chosen, minlength=4) / 4000
        assert shares.tolist() == pytest.approx(wanted, abs=0.03)
        if top_p < 1:
            assert (shares[torch.tensor(wanted) == 0] == 0).all()


def test_an_answer_that_hit_the_limit_says_so(model, tokenizer):
    short = answers(model, tokenizer, 4, Sampling(max_tokens=1, temperature=0.0, top_p=1.0, seed=3))
    assert all(answer.usage["completion_tokens"] == 1 for answer in short.values())
    assert {answer.finish_reason for answer in short.values()} <= {"length", "stop"}
    assert "length" in {answer.finish_reason for answer in short.values()}


def test_batches_depend_on_all_requests_and_are_sorted_by_length(tokenizer):
    batches = local.split_batches(tokenizer, requests(), limits(3))
    lengths = [len(chat.prompt_ids(tokenizer, item.messages)) for batch in batches for item in batch]
    assert lengths == sorted(lengths)
    assert [len(batch) for batch in batches] == [3, 1]
    assert batches == local.split_batches(tokenizer, requests()[::-1], limits(3))


def test_batches_hold_their_padded_tokens_and_each_request_once(tokenizer):
    lengths = {item.id: len(chat.prompt_ids(tokenizer, item.messages)) for item in requests()}
    longest = max(lengths.values()) + 10
    for most in (1, longest, 2 * longest, 3 * longest - 1, 100 * longest):
        batches = local.split_batches(tokenizer, requests(), limits(99, most))
        assert sorted(item.id for batch in batches for item in batch) == sorted(lengths)
        for batch in batches:
            assert len(batch) == 1 or len(batch) * (max(lengths[item.id] for item in batch) + 10) <= most
    assert [len(batch) for batch in batches] == [4]
    assert [len(batch) for batch in local.split_batches(tokenizer, requests(), limits(99, 1))] == [1] * 4


def test_rows_are_yielded_as_they_finish(model, tokenizer):
    prompts = [chat.prompt_ids(tokenizer, request.messages) for request in requests()]
    free = decoding.decode(model, prompts, [0] * 4, end=len(tokenizer) - 1, sampling=GREEDY)
    end = free[0][0][3]
    steps = list(decoding.decode_rows(model, prompts, [0] * 4, end, GREEDY))
    assert len(steps) > 1
    counts = [len(tokens) for step in steps for _, (tokens, _) in step]
    assert counts == sorted(counts)
    assert [row for _, row in sorted(item for step in steps for item in step)] == decoding.decode(
        model, prompts, [0] * 4, end, GREEDY
    )
