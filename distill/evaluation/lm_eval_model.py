"""A loaded model behind lm-eval's interface, scoring and decoding exactly as in training."""

from collections import Counter
from collections.abc import Sequence
from itertools import takewhile
from typing import Any

from lm_eval.api.instance import Instance
from lm_eval.api.model import LM
from tqdm import tqdm

from distill.modeling.chat import end_of_turn
from distill.modeling.continuations import Candidates, score_candidates
from distill.modeling.decoding import decode
from distill.modeling.sampling import Sampling
from distill.modeling.scoring import Score

Place = tuple[int, int, int, int]


class Scored(tuple):
    """lm-eval's (log-likelihood, whether greedy), with the places of the tokens that the model ranks first."""

    ranked_first: frozenset[Place]


class Written(str):
    """A generated text, with its length in the model's own tokens and whether the model ended it by itself."""

    tokens: int
    ended: bool


def places(tokenizer: Any, text: str) -> tuple[list[int], list[Place]]:
    """The ids of an answer, and for each token where it stands: first character, end, which of how many there.

    As in training (distill.chat.response_ids) the end of turn behind it is one token, and one inside it is text; an
    answer that was cut short right behind such a text is taken for an ended one. Pieces of one character (an emoji cut
    into bytes) share its span: they are the same tokens only where they are as many.
    """
    end_id = end_of_turn(tokenizer)
    said = text.removesuffix(tokenizer.decode([end_id]))
    encoded = tokenizer(said, add_special_tokens=False, split_special_tokens=True, return_offsets_mapping=True)
    ids, spans = encoded.input_ids, [tuple(span) for span in encoded.offset_mapping]
    if said != text:
        ids, spans = [*ids, end_id], [*spans, (len(said), len(text))]
    counts, seen = Counter(spans), Counter[Any]()
    result = []
    for start, end in spans:
        result.append((start, end, seen[start, end], counts[start, end]))
        seen[start, end] += 1
    return ids, result


class DistillLM(LM):
    """Contexts are rendered prompts; context and continuation are encoded apart, as in training.

    lm-eval's own HFLM encodes them together and moves the prompt's last newline into the answer.
    """

    def __init__(self, model: Any, tokenizer: Any, batch_tokens: int, batch_size: int, max_new_tokens: int) -> None:
        super().__init__()
        self.model, self.hf_tokenizer = model, tokenizer
        self.batch_tokens, self.batch_size, self.max_new_tokens = batch_tokens, batch_size, max_new_tokens
        self.begun: dict[str, list[int]] = {}  # of contexts that were scored: how the greedy answer begins

    def loglikelihood(self, requests: Sequence[Instance]) -> list[tuple[float, bool]]:
        """(Nats of the continuation, whether it is the greedy one) of each (context, continuation)."""
        asked = [request.args for request in requests]
        contexts: dict[str, dict[str, None]] = {}  # the right choice of a question is its text task too
        for context, continuation in asked:
            contexts.setdefault(context, {})[continuation] = None
        questions, where = [], []
        for context, continuations in contexts.items():
            encoded = [places(self.hf_tokenizer, continuation) for continuation in continuations]
            prompt = self.hf_tokenizer(context, add_special_tokens=False).input_ids
            questions.append(Candidates(prompt, [ids for ids, _ in encoded]))
            where.append([(context, text, spans) for text, (_, spans) in zip(continuations, encoded, strict=True)])
        results: dict[Any, Any] = {}
        progress = tqdm(total=len(questions), desc="scores", unit="prompt", leave=False)
        for index, found in score_candidates(self.model, questions, self.batch_tokens):
            for (context, text, spans), score in zip(where[index], found, strict=True):
                scored = Scored((sum(score.log_probs), all(score.ranked_first)))
                scored.ranked_first = frozenset(
                    place for place, first in zip(spans, score.ranked_first, strict=True) if first
                )
                results[context, text] = scored
            self.begun[where[index][0][0]] = _greedy_beginning(questions[index], found)
            progress.update()
        progress.close()
        return [results[pair] for pair in asked]

    def loglikelihood_rolling(self, requests: Sequence[Instance]) -> list[float]:
        """Not of use for our tasks; lm-eval's own run through its HFLM."""
        raise NotImplementedError("our tasks score answers to prompts; whole texts go through lm-eval's HFLM")

    def generate_until(self, requests: Sequence[Instance]) -> list[str]:
        """The greedy answer to each context, without the end-of-turn token.

        Where a continuation of the context was scored, its tokens up to the first that does not rank first are how
        the greedy answer begins, and decoding goes on from there (speculative decoding, Leviathan et al. 2023, with
        texts that are there already as drafts).
        """
        end = end_of_turn(self.hf_tokenizer)
        prompts = [self.hf_tokenizer(request.args[0], add_special_tokens=False).input_ids for request in requests]
        answers = [self.begun.get(request.args[0], [])[: self.max_new_tokens] for request in requests]
        left = [
            index
            for index, tokens in enumerate(answers)
            if len(tokens) < self.max_new_tokens and (not tokens or tokens[-1] != end)
        ]
        left.sort(key=lambda index: len(prompts[index]) + len(answers[index]))
        greedy = Sampling(max_tokens=self.max_new_tokens, temperature=0.0, top_p=1.0, seed=0)
        for start in tqdm(range(0, len(left), self.batch_size), desc="generation", unit="batch", leave=False):
            chosen = left[start : start + self.batch_size]
            begun = [prompts[index] + answers[index] for index in chosen]
            for index, (tokens, _) in zip(
                chosen, decode(self.model, begun, [0] * len(chosen), end, greedy), strict=True
            ):
                answers[index] = [*answers[index], *tokens][: self.max_new_tokens]
        return [self._written(tokens, end) for tokens in answers]

    def _written(self, tokens: list[int], end: int) -> Written:
        ended = tokens[-1] == end
        text = Written(self.hf_tokenizer.decode(tokens[:-1] if ended else tokens).strip())
        text.tokens, text.ended = len(tokens), ended
        return text


def _greedy_beginning(question: Candidates, found: list[Score]) -> list[int]:
    """The longest beginning of a continuation all of whose tokens rank first: that of the model's greedy answer."""
    agreed = [
        tokens[: sum(1 for _ in takewhile(bool, score.ranked_first))]
        for tokens, score in zip(question.continuations, found, strict=True)
    ]
    return max(agreed, key=len)
