import json
import math

import lm_eval
import numpy as np
import pandas as pd
import pytest
import tiny
import torch
from lm_eval.api.instance import Instance
from scipy.stats import bootstrap

from distill.core.errors import UserError
from distill.evaluation import held_out, latency, multiple_choice
from distill.evaluation import scores as calibration
from distill.evaluation.bootstrap import Estimate, ratio_interval
from distill.evaluation.goals import GOALS
from distill.evaluation.lm_eval_model import DistillLM, Written, places
from distill.evaluation.regressions import largest
from distill.evaluation.scores import estimates
from distill.evaluation.tasks import scores as task_scores
from distill.modeling import continuations
from distill.modeling.chat import Example, encode, render
from distill.modeling.continuations import Candidates
from distill.modeling.decoding import decode
from distill.modeling.forward import logits_at
from distill.modeling.sampling import Sampling
from distill.modeling.scoring import score_examples
from distill.students.vocabulary import choose, trim
from stages import evaluate


def row(number: int, response: str, topic: str = "ants") -> dict:
    messages = [{"role": "user", "content": f"What is {topic} {number}?"}]
    return {
        "id": f"r{number}", "prompt_id": f"p{number}", "topic": topic, "messages": messages, "response": response,
        "finish_reason": "stop",
    }  # fmt: skip


@pytest.fixture(scope="module")
def tokenizer():
    return tiny.tokenizer()


@pytest.fixture(scope="module")
def model(tokenizer):
    return tiny.model(len(tokenizer))


EXAMPLES = [Example("a", [1, 5, 6], [7, 8, 2]), Example("b", [1, 9], [10, 2]), Example("c", [1, 4, 4, 4, 4], [3])]


def test_logits_at_positions_are_those_of_the_whole_and_the_hook_is_gone_after(model):
    ids = torch.tensor([[1, 5, 6, 7], [1, 9, 10, 2]])
    wanted = torch.tensor([[False, True, False, True], [True, False, False, False]])
    whole = model(ids).logits
    with logits_at(model, wanted):
        some = model(ids).logits
    assert torch.equal(some, whole[wanted])
    assert torch.equal(model(ids).logits, whole)


@pytest.mark.parametrize("budget", [1, 12, 1000])
def test_scores_are_the_log_softmax_whatever_the_batches(model, budget):
    found = dict(score_examples(model, EXAMPLES, budget))
    for index, example in enumerate(EXAMPLES):
        logits = model(torch.tensor([example.prompt + example.response])).logits[0].log_softmax(-1)
        start = len(example.prompt) - 1
        expected = [float(logits[start + place, token]) for place, token in enumerate(example.response)]
        assert found[index].log_probs == pytest.approx(expected, abs=1e-4)
        assert found[index].ranked_first == [
            bool(logits[start + place].argmax() == token) for place, token in enumerate(example.response)
        ]


QUESTIONS = [
    Candidates([1, 5, 6], [[7, 8, 2], [9]]),
    Candidates([1, 9], [[10, 2], [3, 4, 5, 6, 7], [2]]),
    Candidates([1, 4, 4, 4, 4], [[3, 3]]),
    Candidates([1, 5, 6], [[], [4, 4]]),
]


@pytest.mark.parametrize("budget", [1, 20, 1000])
def test_continuations_of_one_prompt_score_as_each_pair_alone(model, budget):
    found = dict(continuations.score_candidates(model, QUESTIONS, budget))
    assert sorted(found) == [0, 1, 2, 3]
    for index, question in enumerate(QUESTIONS):
        for tokens, score in zip(question.continuations, found[index], strict=True):
            alone = dict(score_examples(model, [Example("a", question.prompt, tokens)], 1000))[0] if tokens else None
            assert score.log_probs == pytest.approx(alone.log_probs if alone else [], abs=1e-4)
            assert score.ranked_first == (alone.ranked_first if alone else [])


def test_a_batch_of_continuations_keeps_to_its_tokens_and_to_like_continuations():
    lengths = [(4, 20), (9, 5), (4, 19), (5, 5), (4, 6)]  # of prompt and longest continuation
    questions = [Candidates([1] * prompt, [[2] * 3, [2] * longest]) for prompt, longest in lengths]
    assert continuations.candidate_batches(questions, 96) == [[0, 2], [4, 1, 3]]
    assert continuations.candidate_batches(questions, 95) == [[0], [2, 4], [1, 3]]
    assert continuations.candidate_batches(questions, 1) == [[0], [2], [4], [1], [3]]


def test_what_two_tasks_ask_alike_is_scored_once_and_a_prompt_read_once(model, tokenizer):
    pairs = [("What is", " honey?"), ("What is", " glass?"), ("What is", " honey?")]
    shapes = []
    hook = model.model.layers[0].register_forward_pre_hook(lambda _, inputs: shapes.append(inputs[0].shape[:2]))
    found = DistillLM(model, tokenizer, 1, 4, 8).loglikelihood(
        [Instance("loglikelihood", {}, pair, number) for number, pair in enumerate(pairs)]
    )
    hook.remove()
    prompt, *answers = (len(tokenizer(text).input_ids) for text in ("What is", " honey?", " glass?"))
    assert shapes == [(1, prompt - 1), (2, max(answers))]
    assert found[0] == found[2] != found[1]
    assert found[0].ranked_first == found[2].ranked_first


def test_the_interval_agrees_with_scipys():
    values = np.random.default_rng(0).gamma(2.0, size=80)
    mine = ratio_interval(values, np.ones(80), 4000, seed=1)
    theirs = bootstrap((values,), np.mean, method="percentile", n_resamples=4000, rng=2).confidence_interval
    assert mine.value == pytest.approx(values.mean())
    assert mine.ci_low == pytest.approx(theirs.low, abs=0.02)
    assert mine.ci_high == pytest.approx(theirs.high, abs=0.02)


def test_a_perplexity_is_exp_of_all_nats_over_all_tokens():
    nats, tokens = np.array([10.0, 2.0]), np.array([4.0, 2.0])
    assert ratio_interval(nats, tokens, 100, 0, np.exp).value == pytest.approx(math.exp(12 / 6))
    assert task_scores.perplexity([(10.0, 4), (2.0, 2)]) == pytest.approx(math.exp(2))


def test_wrong_answers_are_other_prompts_answers_of_like_length_and_all_different():
    pool = [row(number, "x" * (10 + number // 4) + str(number)) for number in range(60)]
    pool[7]["response"] = pool[8]["response"]
    picked = multiple_choice.choices(pool, pool, seed=3)
    for own, (indices, answer) in enumerate(picked):
        assert indices[answer] == own
        texts = [pool[place]["response"] for place in indices]
        assert len(set(texts)) == 4
        assert max(map(len, texts)) - min(map(len, texts)) <= 6
    assert picked == multiple_choice.choices(pool, pool, seed=3)
    assert picked != multiple_choice.choices(pool, pool, seed=4)
    assert {answer for _, answer in picked} == {0, 1, 2, 3}


def test_another_teachers_answer_to_the_same_prompt_is_no_wrong_answer():
    pool = [row(number, f"answer number {number}") for number in range(6)]
    pool[1]["prompt_id"] = pool[0]["prompt_id"]
    for seed in range(20):
        (indices, _), *_ = multiple_choice.choices(pool[:1], pool, seed)
        assert 1 not in indices


def test_too_few_answers_are_refused():
    with pytest.raises(UserError, match="too few answers"):
        multiple_choice.choices([row(0, "a")], [row(0, "a"), row(1, "b")], 0)


def test_places_tell_tokens_apart_also_inside_one_character(tokenizer):
    ids, where = places(tokenizer, "a😀b")
    assert len(ids) == len(where) == len(set(where))
    assert tokenizer.decode(ids) == "a😀b"


def documents(tokenizer, teacher, rows: list[dict]) -> list[dict]:
    picked = [([place, (place + 1) % 4, (place + 2) % 4, (place + 3) % 4], 0) for place in range(len(rows))]
    return held_out.documents(rows, rows, picked, tokenizer, teacher)


ROWS = [row(0, "the quick ants"), row(1, "a lazy dog"), row(2, "brown 😀 fox"), row(3, "What <|im_end|> is honey?")]


def test_a_document_is_the_prompt_and_answer_of_training(tokenizer):
    for item, doc in zip(ROWS, documents(tokenizer, tokenizer, ROWS), strict=True):
        example = encode(tokenizer, item)
        assert doc["prompt"] == render(tokenizer, item["messages"])
        assert tokenizer(doc["prompt"], add_special_tokens=False).input_ids == example.prompt
        assert places(tokenizer, doc["response"])[0] == example.response
        assert doc["choices"][0] == doc["response"]
        assert len(doc["teacher_tokens"]) == len(example.response)


def test_the_prompt_is_that_of_training_though_the_tokenizer_adds_a_bos_of_its_own(model):
    tokenizer = tiny.tokenizer_with_bos()
    lm = DistillLM(model, tokenizer, batch_tokens=200, batch_size=2, max_new_tokens=5)
    docs = documents(tokenizer, tokenizer, ROWS)
    examples = [encode(tokenizer, item) for item in ROWS]
    pairs = [Instance("loglikelihood", {}, (doc["prompt"], doc["response"]), 0) for doc in docs]
    by_hand = dict(score_examples(model, examples, 1000))
    for place, (nats, _) in enumerate(lm.loglikelihood(pairs)):
        assert nats == pytest.approx(sum(by_hand[place].log_probs), abs=1e-3)
    lm.begun.clear()
    greedy = Sampling(max_tokens=5, temperature=0.0, top_p=1.0, seed=0)
    answers = decode(model, [example.prompt for example in examples], [0] * len(ROWS), tokenizer.eos_token_id, greedy)
    asked = [Instance("generate_until", {}, (doc["prompt"], {}), 0) for doc in docs]
    assert lm.generate_until(asked) == [tokenizer.decode(tokens).strip() for tokens, _ in answers]


def test_our_tasks_through_lm_eval_score_what_the_model_says(model, tokenizer):
    lm = DistillLM(model, tokenizer, batch_tokens=200, batch_size=2, max_new_tokens=5)
    rows = held_out.items(lm, documents(tokenizer, tokenizer, ROWS), {"r1", "r2"})
    items = pd.DataFrame(rows)
    assert list(items["item"]) == ["r0", "r1", "r2", "r3"]
    by_hand = dict(score_examples(model, [encode(tokenizer, item) for item in ROWS], 1000))
    for place, item in enumerate(items.itertuples()):
        assert item.nll == pytest.approx(-sum(by_hand[place].log_probs), abs=1e-3)
        assert item.tokens == len(by_hand[place].log_probs)
        assert item.top1_tokens == sum(by_hand[place].ranked_first)
        assert item.correct in (0.0, 1.0)
        assert 0.25 <= item.confidence <= 1
    assert [row["ended"] for row in rows if "ended" in row] == [0.0, 0.0]  # a random model within 5 tokens
    assert items["rouge_l"].notna().tolist() == [False, True, True, False]


def test_a_trimmed_student_is_divided_by_the_teachers_tokens_and_cut_tokens_never_agree(tokenizer):
    small = trim(tokenizer, choose(tokenizer, {}, 290))
    docs = documents(small, tokenizer, ROWS)
    for doc, item in zip(docs, ROWS, strict=True):
        assert len(doc["teacher_tokens"]) == len(encode(tokenizer, item).response)
        own = set(places(small, doc["response"])[1])
        cut = [tuple(token) for token in doc["teacher_tokens"] if tuple(token) not in own]
        assert cut, "nothing was cut finer, so that the case says nothing"
        everything = task_scores.text(doc, [Ranked(own)])
        assert everything["top1_tokens"][0] == len(doc["teacher_tokens"]) - len(cut)
        assert everything["nll"][1] == len(doc["teacher_tokens"])


class Ranked(tuple):
    """A result whose every own token ranked first."""

    def __new__(cls, own):
        made = super().__new__(cls, (-1.0, True))
        made.ranked_first = frozenset(own)
        return made


def test_generated_texts_are_held_against_the_references_over_the_longer_one(tokenizer):
    rows = [{"item": "a", "generated": "abc"}, {"item": "b", "generated": "ab"}, {"item": "c", "generated": ""}]
    found = held_out.compared([*rows, {"item": "d"}], {"a": "abc", "b": "abcd", "c": "ab", "d": "x"}, tokenizer)
    names = ("matching_tokens", "longer_length", "generated_length", "reference_length")
    assert [tuple(row.get(name) for name in names) for row in found] == [
        (3, 3, 3, 3), (2, 4, 2, 4), (0, 2, 0, 2), (None, None, None, None)
    ]  # fmt: skip


def written(text: str, ended: bool = True) -> Written:
    made = Written(text)
    made.tokens, made.ended = len(text), ended
    return made


def test_rouge_l_is_the_longest_common_subsequence():
    doc = {"response": "the cat sat down"}
    assert task_scores.generation(doc, [written("the cat sat down")]) == {"rouge_l": 1, "ended": 1}
    found = task_scores.generation(doc, [written("the dog sat", ended=False)])
    assert found["rouge_l"] == pytest.approx(2 * (2 / 3) * (2 / 4) / (2 / 3 + 2 / 4))
    assert found["ended"] == 0
    assert task_scores.generation(doc, [written("")])["rouge_l"] == 0


def test_a_generated_text_says_how_long_it_is_and_whether_it_ended(tokenizer):
    lm = DistillLM(tiny.teacher(), tokenizer, batch_tokens=200, batch_size=2, max_new_tokens=64)
    prompt = render(tokenizer, [{"role": "user", "content": "What is ants?"}])
    [whole] = lm.generate_until([Instance("generate_until", {}, (prompt, {}), 0)])
    assert whole == "ants is what people like."
    assert (whole.ended, whole.tokens) == (True, len(tokenizer(whole).input_ids) + 1)
    lm.max_new_tokens = 3
    [cut] = lm.generate_until([Instance("generate_until", {}, (prompt, {}), 0)])
    assert (cut.ended, cut.tokens) == (False, 3)


def test_a_scored_text_spares_decoding_and_changes_no_answer(tokenizer):
    teacher = tiny.teacher()
    prompts = [render(tokenizer, [{"role": "user", "content": f"What is {topic}?"}]) for topic in tiny.TOPICS[:3]]
    end = tokenizer.decode([tokenizer.eos_token_id])
    drafts = [f"{tiny.TOPICS[0]} is what people like.{end}", f"{tiny.TOPICS[1]} is what nobody likes.", "Tell"]
    asked = [Instance("generate_until", {}, (prompt, {}), number) for number, prompt in enumerate(prompts)]
    for most in (4, 64):
        plain = DistillLM(teacher, tokenizer, batch_tokens=200, batch_size=8, max_new_tokens=most)
        scored = DistillLM(teacher, tokenizer, batch_tokens=200, batch_size=8, max_new_tokens=most)
        pairs = [Instance("loglikelihood", {}, pair, 0) for pair in zip(prompts, drafts, strict=True)]
        scored.loglikelihood(pairs)
        assert [len(scored.begun[prompt]) > 2 for prompt in prompts] == [True, True, False]
        rows = []
        hook = teacher.model.layers[0].register_forward_pre_hook(
            lambda _, inputs, rows=rows: rows.append(len(inputs[0]))
        )
        found = scored.generate_until(asked)
        hook.remove()
        assert max(rows) == (1 if most == 4 else 2), "the first answer was complete and was decoded again"
        wanted = plain.generate_until(asked)
        assert found == wanted
        assert [(text.tokens, text.ended) for text in found] == [(text.tokens, text.ended) for text in wanted]


def test_the_calibration_error_is_the_gap_of_each_bin_by_its_share():
    confidence = np.array([0.95, 0.95, 0.95, 0.95, 0.3, 0.35])
    correct = np.array([1.0, 1.0, 1.0, 0.0, 0.0, 1.0])
    # three bins: (0.9, 1] is 0.75 right, (0.2, 0.3] not at all, (0.3, 0.4] always
    wanted = 4 / 6 * 0.2 + 1 / 6 * 0.3 + 1 / 6 * 0.65
    assert calibration.expected_calibration_error(confidence, correct) == pytest.approx(wanted)
    assert calibration.expected_calibration_error(np.ones(3), np.ones(3)) == 0
    items = pd.DataFrame({"confidence": confidence, "correct": correct})
    found = calibration.calibration(items)
    assert found["mean_confidence"] - found["accuracy"] == pytest.approx(4.45 / 6 - 4 / 6)


def test_lengths_are_of_the_generated_items_only():
    items = pd.DataFrame(
        {"generated_length": [4, 8, np.nan], "reference_length": [8, 8, np.nan], "ended": [1.0, 0.0, np.nan]}
    )
    assert calibration.lengths(items) == {
        "generated_tokens": 6.0, "reference_tokens": 8.0, "ratio": 0.75, "ended": 0.5
    }  # fmt: skip


def test_the_largest_regressions_are_by_nats_per_token_beyond_the_teachers():
    rows = [row(number, f"answer {number}") for number in range(30)]
    names = [item["id"] for item in rows]
    teacher = pd.DataFrame({"item": names, "nll": 5.0, "tokens": 10, "generated": "t"})
    distilled = teacher.assign(nll=[5.0 + number for number in range(30)], generated="d")
    distilled.loc[29, "nll"], teacher.loc[29, "tokens"] = 40.0, 100  # many nats, few for each token
    teacher["generated"] = ["t", *[np.nan] * 29]
    distilled["generated"] = ["d", *[np.nan] * 29]
    found = largest(rows, {"teacher": teacher, "distilled": distilled, "sft": teacher})
    assert [item["id"] for item in found] == [f"r{number}" for number in range(28, 8, -1)]
    assert list(found[0]) == [
        "id", "messages", "reference", "generated", "teacher_nll", "distilled_nll", "tokens"
    ]  # fmt: skip
    assert found[0]["generated"] == {"teacher": None, "distilled": None}
    assert (found[0]["teacher_nll"], found[0]["distilled_nll"], found[0]["tokens"]) == (5.0, 33.0, 10)
    few = {"teacher": teacher[:2], "distilled": distilled[:2].assign(nll=[6.0, 5.0])}
    [only] = largest(rows, few)  # what is no worse is no regression
    assert only["generated"] == {"teacher": "t", "distilled": "d"}


def table(**changes: float) -> dict:
    def estimate(value: float) -> Estimate:
        return Estimate(value, value, value)

    def model(accuracy: float, perplexity: float) -> dict:
        names = ("top1_agreement", "rouge_l")
        return {
            "accuracy": estimate(accuracy),
            "accuracy_above_chance": estimate((accuracy - 0.25) / 0.75),
            "perplexity": estimate(perplexity),
        } | {name: estimate(0.5) for name in names}

    value = {"accuracy": 0.9, "perplexity": 9.0, "parameters": 24, "gain": 3.04} | changes
    scores = {"teacher": model(1.0, 2.0), "init": model(0.25, 1e5), "sft": model(0.8, 12.0)}
    scores["distilled"] = model(value["accuracy"], value["perplexity"])
    sizes = dict.fromkeys(scores, (100, 400)) | {"distilled": (int(value["parameters"]), 96)}
    return evaluate.main_table(scores, sizes, value["gain"], multiple_choice.CHANCE)


def test_the_goals_compare_the_distilled_student_with_the_teacher():
    goals = table()["goals"]
    assert goals == {
        "accuracy_ratio": 0.9,
        "accuracy_ratio_above_chance": pytest.approx(0.65 / 0.75, rel=1e-5),
        "perplexity": 9.0,
        "compression_ratio": 0.24,
        "latency_gain": 3.0,
        "met": 4,
    }


@pytest.mark.parametrize(
    ("changes", "met"),
    [
        ({"accuracy": 0.85}, 3), ({"accuracy": 0.851}, 4), ({"perplexity": 20.0}, 4), ({"perplexity": 20.1}, 3),
        ({"parameters": 25}, 4), ({"parameters": 26}, 3), ({"gain": 2.0}, 4), ({"gain": 1.94}, 3),
    ],
)  # fmt: skip
def test_each_goal_is_met_on_its_own_side_of_the_threshold(changes, met):
    assert table(**changes)["goals"]["met"] == met
    assert len(GOALS) == 4


def test_a_teacher_at_chance_means_that_the_task_is_wrong():
    with pytest.raises(UserError, match="no better than chance"):
        chance = Estimate(0.25, 0.2, 0.3)
        scores = {
            name: {"accuracy": chance, "accuracy_above_chance": Estimate(0.0, 0, 0)}
            | dict.fromkeys(("perplexity", "top1_agreement", "rouge_l"), chance)
            for name in ("teacher", "init", "sft", "distilled")
        }
        evaluate.main_table(scores, dict.fromkeys(scores, (1, 1)), 1.0, multiple_choice.CHANCE)  # fmt: skip


def test_all_models_are_given_the_same_items_drawn_by_the_seed():
    rows = [row(number, "x") for number in range(50)]
    assert multiple_choice.subset(rows, 10, 1) == multiple_choice.subset(rows, 10, 1)
    assert multiple_choice.subset(rows, 10, 1) != multiple_choice.subset(rows, 10, 2)
    assert multiple_choice.subset(rows, 99, 1) == rows


def test_latency_is_measured_in_turn_after_warming_up(model, tokenizer, monkeypatch):
    calls = []
    monkeypatch.setattr(
        latency, "answer", lambda model, prompt, new: calls.append(model) or latency.Run(0.1, 0.9, new - 1)
    )
    runs = latency.measure({"a": model, "b": tiny.model(30)}, prompt_tokens=4, new_tokens=10, warmup=1, runs=2)
    assert [len(part) for part in runs.values()] == [2, 2]
    assert calls[0::2] == [model] * 3
    assert model not in calls[1::2]
    summary = latency.summary(runs["a"])
    assert summary["time_to_first_token_ms"]["median"] == pytest.approx(100)
    assert summary["decode_tokens_per_s"]["median"] == pytest.approx(10)
    assert latency.median_seconds(runs["a"]) == pytest.approx(1.0)


def test_timed_answers_have_the_length_asked_for(model):
    run = latency.answer(model, torch.tensor([[1, 5, 6]]), new_tokens=4)
    assert run.tokens == 3
    assert run.first > 0
    assert run.rest > 0


def test_a_result_that_a_limit_cut_is_refused_for_the_main_table(model, tokenizer, monkeypatch):
    lm = DistillLM(model, tokenizer, batch_tokens=200, batch_size=2, max_new_tokens=2)
    docs = documents(tokenizer, tokenizer, ROWS)
    real = lm_eval.evaluate
    monkeypatch.setattr("lm_eval.evaluate", lambda **options: real(limit=3, **options))
    with pytest.raises(UserError, match=r"teacher_choice on 3 of 4 documents.*not for the main table"):
        held_out.items(lm, docs, {"r1"})


def test_items_keep_their_scores_when_only_some_were_generated():
    items = pd.DataFrame(
        {"correct": [1.0, 0.0], "correct_norm": [1.0, 1.0], "nll": [3.0, 1.0], "tokens": [2, 2], "bytes": [8, 8],
         "top1_tokens": [1, 2], "rouge_l": [0.5, np.nan], "matching_tokens": [1, np.nan], "longer_length": [4, np.nan]}
    )  # fmt: skip
    found = estimates([items], 100, 0, multiple_choice.CHANCE)
    assert found["rouge_l"].value == 0.5
    assert found["token_match"].value == 0.25
    assert found["top1_agreement"].value == 0.75
    assert found["perplexity"].value == pytest.approx(math.e)
    assert found["bits_per_byte"].value == pytest.approx(4 / math.log(2) / 16)
    assert json.dumps({key: value.value for key, value in found.items()})
