"""One teacher's endpoint through the openai SDK: each attempt waits for its turn and is accounted for."""

import asyncio
import random
import time
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import Any

import httpx2
import openai
from tqdm import tqdm

from distill.core.errors import UserError
from distill.generation.api.rate_limits import Gate, Rate
from distill.generation.budget import Budget, cost, likely_prompt_tokens, most_prompt_tokens
from distill.generation.completions import Request
from distill.generation.journal import TOKENS, Journal
from distill.modeling.sampling import Sampling
from distill.params.teachers import ApiTeacher

PATH = "/chat/completions"  # the Responses API has neither seed nor n nor stop
NEVER_SENT = (httpx2.ConnectError, httpx2.ConnectTimeout, httpx2.PoolTimeout)
NOTHING = dict.fromkeys(TOKENS, 0)
RETRIED = (408, 409, 429)  # and those from 500 on, as the SDK has it
# The gate slows all requests together, so that one need not wait as long as the SDK, which doubles from 0.5 s.
FIRST_RETRY_S, SLOWER = 0.25, 1.5
FIRST_RECONNECT_S, RECONNECT_SLOWER = 0.5, 2.0  # a server that starts anew takes a while
LONGEST_RETRY_S = 8.0
LONGEST_PAUSE = 120.0  # seconds: a request that is told to wait longer is given up


@dataclass(frozen=True)
class Job:
    """What asking one teacher takes beside the requests; `log_probs`: whether it is asked for them."""

    teacher: ApiTeacher
    key: str
    sampling: Sampling
    log_probs: bool
    budget: Budget
    journal: Journal
    bar: "tqdm[Any]"  # its class takes no type at run time


@dataclass
class Ticket:
    """One request on its way through all its attempts.

    `most` are the tokens that an attempt can be billed, `reserved` whether they are put aside for the next;
    `lost` says that no reply came to the last one, which may have been billed all the same.
    """

    request_id: str
    most: dict[str, int]
    rate_tokens: int
    attempts: int = 0
    reserved: bool = False
    lost: bool = False


class Account:
    """What the requests of one job share: rates, gate, and the books of what was sent and paid.

    `stopped` is why nothing more may be sent.
    """

    def __init__(self, job: Job) -> None:
        self.teacher, self.budget, self.journal = job.teacher, job.budget, job.journal
        self.max_tokens = job.sampling.max_tokens
        self.requests = Rate(job.teacher.requests_per_minute)
        self.tokens = Rate(job.teacher.tokens_per_minute)
        self.gate = Gate(job.teacher.concurrency)
        self.stopped: UserError | None = None

    def ticket(self, request: Request) -> Ticket:
        """The ticket of a request that was not sent yet."""
        most = {"prompt_tokens": most_prompt_tokens(request.messages), "completion_tokens": self.max_tokens}
        return Ticket(request.id, most, likely_prompt_tokens(request.messages) + self.max_tokens)

    async def send(self, sdk: openai.AsyncOpenAI, ticket: Ticket, body: dict[str, Any]) -> httpx2.Response:
        """The reply to a request, which is sent again after what may pass, up to `max_retries` times.

        The SDK's own retries are not used: its pause after a time-out cannot be chosen, and a request that was
        waited for all that time goes again at once. Raises what the SDK does, and UserError once asking stopped.
        """
        while True:
            await self.admit(ticket)
            async with self.gate.passing():
                await self.requests.take(1)
                await self.tokens.take(ticket.rate_tokens)
                if self.stopped is not None:
                    raise self.stopped
                ticket.attempts += 1
                try:
                    reply = await sdk.post(PATH, cast_to=httpx2.Response, body=body, options={"max_retries": 0})
                except openai.APIError as error:
                    pause = self._heed(ticket, error)
                    if pause is None or ticket.attempts > self.teacher.max_retries:
                        raise
                else:
                    self.gate.success()
                    return reply
            await asyncio.sleep(pause)

    def _heed(self, ticket: Ticket, error: openai.APIError) -> float | None:
        """Seconds until a failed attempt is made again, None where it is not; a lost reply is booked."""
        if isinstance(error, openai.APIConnectionError):
            if not isinstance(error.__cause__, NEVER_SENT):
                self.lose(ticket)
            if isinstance(error, openai.APITimeoutError):
                return 0.0
            return _pause(FIRST_RECONNECT_S, RECONNECT_SLOWER, ticket.attempts)
        if not isinstance(error, openai.APIStatusError) or "insufficient_quota" in error.response.text:
            return None  # no waiting mends it
        wait = _retry_after(error.response)
        if error.status_code == 429:
            self.gate.too_many(None if wait is None else min(wait, LONGEST_PAUSE))
        said = error.response.headers.get("x-should-retry")
        passes = said == "true" or (said != "false" and (error.status_code in RETRIED or error.status_code >= 500))
        if not passes or (wait is not None and wait > LONGEST_PAUSE):
            return None
        return _pause(FIRST_RETRY_S, SLOWER, ticket.attempts) if wait is None else wait

    async def admit(self, ticket: Ticket) -> None:
        """Puts the price of an attempt aside, if need be later, and writes that it goes. Raises UserError."""
        if not ticket.reserved:
            await self.budget.wait_and_reserve(cost(self.teacher.price, ticket.most), self.teacher)
            ticket.reserved, ticket.lost = True, False
            self.journal.sent(ticket.request_id, ticket.most)

    def lose(self, ticket: Ticket) -> None:
        """No reply came to an attempt: it counts as billed in full."""
        ticket.lost = True
        self._book(ticket, ticket.most)

    def settle(self, ticket: Ticket, usage: dict[str, int] | None, replied: bool) -> dict[str, int]:
        """Books a request that is over; returns the tokens that its last attempt is billed.

        Those of a reply are its usage, or the most that it can be where it reports none.
        """
        billed = ticket.most if ticket.lost else NOTHING
        if replied:
            billed = usage or ticket.most
        if ticket.reserved:
            self._book(ticket, billed)
        return billed

    def _book(self, ticket: Ticket, tokens: dict[str, int]) -> None:
        self.budget.book(cost(self.teacher.price, ticket.most), cost(self.teacher.price, tokens))
        ticket.reserved = False


def client(job: Job) -> openai.AsyncOpenAI:
    """The client of a teacher's endpoint."""
    teacher = job.teacher
    return openai.AsyncOpenAI(
        api_key=job.key, base_url=teacher.base_url, timeout=teacher.timeout_s, max_retries=teacher.max_retries
    )


def _pause(first: float, slower: float, attempts: int) -> float:
    """Seconds after so many attempts, up to a quarter less by chance, so that not all come back at once."""
    return min(first * slower ** (attempts - 1), LONGEST_RETRY_S) * (1 - random.random() / 4)


def _retry_after(response: httpx2.Response) -> float | None:
    """Seconds to wait, from retry-after-ms or Retry-After (seconds or a date); None where neither says so."""
    seconds = None
    for name, unit in (("retry-after-ms", 1000.0), ("retry-after", 1.0)):
        value = response.headers.get(name)
        if value is None:
            continue
        try:
            seconds = float(value) / unit
        except ValueError:
            try:
                seconds = parsedate_to_datetime(value).timestamp() - time.time()
            except ValueError:
                continue
        break
    return seconds if seconds is not None and seconds > 0 else None
