"""lm-eval's model interface for a loaded model: scores and decodes exactly as in training."""

from collections import Counter
from collections.abc import Sequence
from itertools import takewhile
from typing import Any

from lm_eval.api.instance import Instance
from lm_eval.api.model import LM
from tqdm import tqdm
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from distill.modeling.chat import end_of_turn, response_spans
from distill.modeling.continuations import Candidates, score_candidates
from distill.modeling.decoding import decode
from distill.modeling.encoding import text_ids
from distill.modeling.sampling import Sampling
from distill.modeling.scoring import Score

# a token in a text: first character, end, its index among the tokens with this span, and their number
Position = tuple[int, int, int, int]
GENERATION_BATCH_SIZE = 128


class ScoredContinuation(tuple):
    """lm-eval's pair (log-likelihood, whether greedy) that also carries the positions of top-1 tokens.

    lm-eval hands a result to a task's `process_results` as it is, so fields beyond the pair reach our tasks.
    """

    top1_positions: frozenset[Position]


class GeneratedText(str):
    """A generated text that also carries its length in the model's tokens and whether the model ended it.

    It reaches our tasks as ScoredContinuation does.
    """

    tokens: int
    ended: bool


def token_positions(tokenizer: PreTrainedTokenizerFast, text: str) -> tuple[list[int], list[Position]]:
    """The token ids of a response and the position of each token in its text.

    As in training (`chat.response_ids`), an end of turn at the end of the text is one token, and inside the text it
    is text. A response that was truncated right after such a text counts as ended. Several tokens of one character,
    such as the bytes of an emoji, share its span: they are the same tokens only where they are equally many.
    """
    end_id = end_of_turn(tokenizer)
    response = text.removesuffix(str(tokenizer.decode([end_id])))
    ids, spans = response_spans(tokenizer, response)
    if response != text:
        ids, spans = [*ids, end_id], [*spans, (len(response), len(text))]
    counts, seen = Counter(spans), Counter[Any]()
    positions = []
    for start, end in spans:
        positions.append((start, end, seen[start, end], counts[start, end]))
        seen[start, end] += 1
    return ids, positions


class DistillLM(LM):
    """A model whose contexts are rendered prompts; context and continuation are encoded separately, as in training.

    lm-eval's own HFLM encodes them together and moves the prompt's last newline into the response.

    `loglikelihood` leaves in `greedy_prefixes` how the greedy response to each context begins; `generate_until`
    continues from there. The state changes the speed and no result.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerFast,
        batch_tokens: int,
        max_new_tokens: int,
        generation_batch_size: int = GENERATION_BATCH_SIZE,
    ) -> None:
        super().__init__()
        self.model, self.hf_tokenizer = model, tokenizer
        self.batch_tokens, self.max_new_tokens = batch_tokens, max_new_tokens
        self.generation_batch_size = generation_batch_size
        self.greedy_prefixes: dict[str, list[int]] = {}

    def loglikelihood(self, requests: Sequence[Instance]) -> list[tuple[float, bool]]:
        """(Nats of the continuation, whether it is the greedy one) of each (context, continuation)."""
        pairs = [request.args for request in requests]
        contexts: dict[str, dict[str, None]] = {}  # each distinct continuation once: tasks share the right choice
        for context, continuation in pairs:
            contexts.setdefault(context, {})[continuation] = None
        results: dict[tuple[str, str], ScoredContinuation] = {}
        candidates, texts = [], []
        for context, continuations in contexts.items():
            encoded = [token_positions(self.hf_tokenizer, continuation) for continuation in continuations]
            prompt = text_ids(self.hf_tokenizer, context)
            candidates.append(Candidates(prompt, [ids for ids, _ in encoded]))
            texts.append((context, list(zip(continuations, [positions for _, positions in encoded], strict=True))))
        progress = tqdm(total=len(candidates), desc="scores", unit="prompt", leave=False)
        for index, context_scores in score_candidates(self.model, candidates, self.batch_tokens):
            context, continuation_positions = texts[index]
            for (text, positions), score in zip(continuation_positions, context_scores, strict=True):
                results[context, text] = scored_continuation(score, positions)
            self.greedy_prefixes[context] = greedy_prefix(candidates[index].continuations, context_scores)
            progress.update()
        progress.close()
        return [results[pair] for pair in pairs]

    def loglikelihood_rolling(self, requests: Sequence[Instance]) -> list[float]:
        """Not implemented: our tasks score responses to prompts."""
        raise NotImplementedError("our tasks score responses to prompts; lm-eval's HFLM scores texts without a prompt")

    def generate_until(self, requests: Sequence[Instance]) -> list[str]:
        """The greedy response to each context, without the end-of-turn token.

        Decoding starts after the context's greedy prefix: a scored continuation is a draft whose top-1 tokens need
        no decoding (speculative decoding, Leviathan et al. 2023).
        """
        end = end_of_turn(self.hf_tokenizer)
        prompts = [text_ids(self.hf_tokenizer, request.args[0]) for request in requests]
        responses = [self.greedy_prefixes.get(request.args[0], [])[: self.max_new_tokens] for request in requests]
        unfinished = [
            index
            for index, tokens in enumerate(responses)
            if len(tokens) < self.max_new_tokens and (not tokens or tokens[-1] != end)
        ]
        unfinished.sort(key=lambda index: len(prompts[index]) + len(responses[index]))
        greedy = Sampling(max_tokens=self.max_new_tokens, temperature=0.0, top_p=1.0, seed=0)
        starts = range(0, len(unfinished), self.generation_batch_size)
        for start in tqdm(starts, desc="generation", unit="batch", leave=False):
            batch = unfinished[start : start + self.generation_batch_size]
            contexts = [prompts[index] + responses[index] for index in batch]
            decoded = decode(self.model, contexts, [0] * len(batch), end, greedy)
            for index, (tokens, _) in zip(batch, decoded, strict=True):
                responses[index] = [*responses[index], *tokens][: self.max_new_tokens]
        return [self._generated_text(tokens, end) for tokens in responses]

    def _generated_text(self, tokens: list[int], end: int) -> GeneratedText:
        ended = tokens[-1] == end
        text = GeneratedText(str(self.hf_tokenizer.decode(tokens[:-1] if ended else tokens)).strip())
        text.tokens, text.ended = len(tokens), ended
        return text


def scored_continuation(score: Score, positions: Sequence[Position]) -> ScoredContinuation:
    """lm-eval's result for one continuation, whose tokens stand at these positions."""
    result = ScoredContinuation((sum(score.log_probs), all(score.ranked_first)))
    result.top1_positions = frozenset(
        position for position, first in zip(positions, score.ranked_first, strict=True) if first
    )
    return result


def greedy_prefix(continuations: Sequence[list[int]], context_scores: Sequence[Score]) -> list[int]:
    """The longest prefix of a continuation of which every token is top-1: so the greedy response begins."""
    prefixes = [
        tokens[: sum(1 for _ in takewhile(bool, score.ranked_first))]
        for tokens, score in zip(continuations, context_scores, strict=True)
    ]
    return max(prefixes, key=len)
