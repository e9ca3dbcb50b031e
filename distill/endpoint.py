"""The openai SDK's client for one teacher: each attempt, retries too, waits for its turn and is accounted for."""

import time
from contextvars import ContextVar
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import Any

import httpx2
import openai
from tqdm import tqdm

from distill.answers import Request, Sampling
from distill.budget import Budget, cost, likely_prompt_tokens, most_prompt_tokens
from distill.errors import UserError
from distill.journal import TOKENS, Journal
from distill.params import ApiTeacher
from distill.rates import Gate, Rate

NEVER_SENT = (httpx2.ConnectError, httpx2.ConnectTimeout, httpx2.PoolTimeout)
NOTHING = dict.fromkeys(TOKENS, 0)
LONGEST_PAUSE = 120.0  # seconds: as the SDK has it, which gives a request up that is told to wait longer


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


TICKET: ContextVar[Ticket] = ContextVar("ticket")


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


class _Client(openai.DefaultAsyncHttpxClient):
    """The SDK's HTTP client with the account of a teacher before and after each attempt."""

    account: Account

    async def send(self, request: httpx2.Request, **options: object) -> httpx2.Response:
        ticket = TICKET.get(None)
        if ticket is None:  # files and batches: no completion, nothing to pay
            return await super().send(request, **options)  # type: ignore[arg-type]
        account = self.account
        await account.admit(ticket)
        async with account.gate.passing():
            await account.requests.take(1)
            await account.tokens.take(ticket.rate_tokens)
            if account.stopped is not None:
                raise account.stopped
            ticket.attempts += 1
            try:
                response = await super().send(request, **options)  # type: ignore[arg-type]
            except NEVER_SENT:
                raise
            except httpx2.RequestError:
                account.lose(ticket)
                raise
            if response.status_code == 429 and "insufficient_quota" in response.text:
                response.headers["x-should-retry"] = "false"  # no waiting mends it, and the SDK would wait
            elif response.status_code == 429:
                account.gate.too_many(_retry_after(response))
            elif response.is_success:
                account.gate.success()
            return response


def client(job: Job, account: Account) -> openai.AsyncOpenAI:
    """The client of a teacher's endpoint."""
    teacher = job.teacher
    http = _Client(base_url=teacher.base_url, timeout=teacher.timeout_s)
    http.account = account
    return openai.AsyncOpenAI(
        api_key=job.key,
        base_url=teacher.base_url,
        timeout=teacher.timeout_s,
        max_retries=teacher.max_retries,
        http_client=http,
    )


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
    return min(seconds, LONGEST_PAUSE) if seconds is not None and seconds > 0 else None
