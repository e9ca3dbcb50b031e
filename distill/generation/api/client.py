"""Requests to one teacher's endpoint through the openai SDK: pace, retries and cost of each attempt."""

import asyncio
from collections import Counter
from dataclasses import dataclass
from typing import Any

import httpx2
import openai
from tqdm import tqdm

from distill.core.errors import UserError
from distill.generation.api.rate_limits import AdaptiveConcurrency, RateLimiter
from distill.generation.api.retries import may_pass, reconnect_pause, retry_after, retry_pause
from distill.generation.budget import Budget, cost, estimated_prompt_tokens, max_prompt_tokens
from distill.generation.completions import MAX_COUNT, TOKENS, Request, is_count
from distill.generation.journal import Journal
from distill.modeling.sampling import Sampling
from distill.params.teachers import ApiTeacher

PATH = "/chat/completions"  # the Responses API has neither seed nor n nor stop
NEVER_SENT = (httpx2.ConnectError, httpx2.ConnectTimeout, httpx2.PoolTimeout)
LENGTH_FIELDS = ("max_tokens", "max_completion_tokens")
EXCESS_NOTE = "tokens beyond the maximum"  # in the journal
EXCESS_MARGIN = 2  # of the largest excess seen, since thinking is longer for some prompts than for others
NO_TOKENS = dict.fromkeys(TOKENS, 0)
MAX_PAUSE_S = 120.0  # a request that is told to wait longer fails


@dataclass(frozen=True)
class QueryJob:
    """Everything needed to query one API in addition to the requests.

    `log_probs`: whether to request them. `proxies`: the environment's variables with a proxy for this endpoint.
    """

    teacher: ApiTeacher
    key: str
    sampling: Sampling
    log_probs: bool
    budget: Budget
    journal: Journal
    bar: "tqdm[Any]"  # the class takes no type parameter at run time
    proxies: str = ""

    @property
    def max_tokens(self) -> int:
        """The tokens that a response may have, by the sampling parameters or by a field that replaces them."""
        fields = (self.teacher.extra_body.get(name) for name in LENGTH_FIELDS)
        return max((value for value in fields if is_count(value)), default=self.sampling.max_tokens)


@dataclass
class InFlightRequest:
    """One request through all its attempts.

    `bounds` are the tokens that it should cost at most, and `max_billed` those with the excess seen. `reserved` says
    whether these are reserved for the next attempt. `lost`: the last attempt had no reply, and may have been billed all
    the same.
    """

    request_id: str
    bounds: dict[str, int]
    max_billed: dict[str, int]
    rate_tokens: int
    attempts: int = 0
    reserved: bool = False
    lost: bool = False


class RequestScheduler:
    """State that the requests of one job share: pace, reservations and payments.

    `stopped` is the reason why nothing more may be sent. `excess` are the tokens that a reply was billed at most beyond
    what was thought the maximum: servers bill thinking beyond max_tokens, and prompts of their own. From the first
    reply on, requests reserve it too; with a budget no second request is sent before that reply.
    """

    def __init__(self, job: QueryJob) -> None:
        self.teacher, self.budget, self.journal = job.teacher, job.budget, job.journal
        self.max_new_tokens = job.max_tokens
        self.excess: Counter[str] = Counter(self.journal.notes.get(EXCESS_NOTE))
        self._in_flight: dict[str, InFlightRequest] = {}
        self.requests = RateLimiter(job.teacher.requests_per_minute)
        self.tokens = RateLimiter(job.teacher.tokens_per_minute)
        self.concurrency = AdaptiveConcurrency(job.teacher.concurrency)
        self.stopped: UserError | None = None

    @property
    def is_untried(self) -> bool:
        """Whether a budget must be kept and no reply has shown what a request costs."""
        return self.budget.limit is not None and EXCESS_NOTE not in self.journal.notes

    def track(self, request: Request) -> InFlightRequest:
        """The state of a request that was not sent yet."""
        bounds = {
            "prompt_tokens": max_prompt_tokens(request.messages),
            "completion_tokens": self.max_new_tokens,
        }
        rate_tokens = estimated_prompt_tokens(request.messages) + self.max_new_tokens
        return InFlightRequest(request.id, bounds, self._with_excess(bounds), rate_tokens)

    async def send(self, sdk: openai.AsyncOpenAI, request: InFlightRequest, body: dict[str, Any]) -> httpx2.Response:
        """The reply to a request. Errors that may pass are retried up to `max_retries` times.

        The SDK's retries are not used: its pause after a time-out cannot be chosen, and a request that waited all
        that time is sent again at once. Raises the SDK's errors, and UserError once the job stopped.
        """
        while True:
            await self.reserve(request)
            async with self.concurrency.slot():
                await self.requests.acquire(1)
                await self.tokens.acquire(request.rate_tokens)
                if self.stopped is not None:
                    raise self.stopped
                request.attempts += 1
                try:
                    reply = await sdk.post(PATH, cast_to=httpx2.Response, body=body, options={"max_retries": 0})
                except openai.APIError as error:
                    pause = self._handle_error(request, error)
                    if pause is None or request.attempts > self.teacher.max_retries:
                        raise
                else:
                    self.concurrency.on_success()
                    return reply
            await asyncio.sleep(pause)

    def _handle_error(self, request: InFlightRequest, error: openai.APIError) -> float | None:
        """Seconds until the next attempt, or None for no retry. Books an attempt without a reply."""
        if isinstance(error, openai.APIConnectionError):
            if not isinstance(error.__cause__, NEVER_SENT):
                self.book_lost(request)
            if isinstance(error, openai.APITimeoutError):
                return 0.0
            return reconnect_pause(request.attempts)
        if not isinstance(error, openai.APIStatusError) or "insufficient_quota" in error.response.text:
            return None  # a retry would not help
        wait = retry_after(error.response)
        if error.status_code == 429:
            self.concurrency.on_rate_limited(None if wait is None else min(wait, MAX_PAUSE_S))
        if not may_pass(error.response) or (wait is not None and wait > MAX_PAUSE_S):
            return None
        return retry_pause(request.attempts) if wait is None else wait

    async def reserve(self, request: InFlightRequest) -> None:
        """Reserves the maximum cost of an attempt, after a wait if necessary, and journals it. Raises UserError."""
        if not request.reserved:
            await self.budget.wait_and_reserve(lambda: cost(self.teacher.price, request.max_billed), self.teacher)
            request.reserved, request.lost = True, False
            self._in_flight[request.request_id] = request
            self.journal.record_sent(request.request_id, request.max_billed)

    def book_lost(self, request: InFlightRequest) -> None:
        """Books an attempt without a reply: it counts as billed in full."""
        request.lost = True
        self._record(request, request.max_billed)

    def settle(self, request: InFlightRequest, usage: dict[str, int] | None, has_reply: bool) -> dict[str, int]:
        """Books the end of a request. Returns the tokens that its last attempt is billed.

        They are the reply's usage, or the maximum if it reports none.
        """
        billed = request.max_billed if request.lost else NO_TOKENS
        if has_reply:
            billed = usage or request.max_billed
            self.learn(request.bounds, usage or request.bounds)
        if request.reserved:
            self._record(request, billed)
        return billed

    def _record(self, request: InFlightRequest, tokens: dict[str, int]) -> None:
        self.budget.record(cost(self.teacher.price, request.max_billed), cost(self.teacher.price, tokens))
        request.reserved = False
        self._in_flight.pop(request.request_id, None)

    def learn(self, bounds: dict[str, int], usage: dict[str, int]) -> None:
        """Notes by how much a reply exceeded its bounds, and reserves that much for the requests in flight too."""
        larger = self.excess | Counter({key: usage[key] - bounds[key] for key in TOKENS})
        if larger == self.excess and not self.is_untried:
            return
        self.excess = larger
        self.journal.note(EXCESS_NOTE, dict(larger))
        for request in self._in_flight.values():
            before, request.max_billed = request.max_billed, self._with_excess(request.bounds)
            prices = (cost(self.teacher.price, tokens) for tokens in (request.max_billed, before))
            self.budget.reserved += next(prices) - next(prices)

    def _with_excess(self, bounds: dict[str, int]) -> dict[str, int]:
        return {key: min(MAX_COUNT, bound + EXCESS_MARGIN * self.excess[key]) for key, bound in bounds.items()}
