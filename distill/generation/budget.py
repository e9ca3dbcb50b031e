"""Hard budget: reserve the maximum cost of a request before it is sent, record its real cost after."""

import asyncio
from collections.abc import Callable, Iterable, Mapping

from distill.core.errors import UserError
from distill.params.teachers import ApiTeacher, Price

MILLION = 1_000_000
TEMPLATE_TOKENS = 64  # of a chat template around all messages (some add the date and their own system prompt)
TURN_TOKENS = 16  # of a chat template around each message
BYTES_PER_TOKEN = 4  # of usual text


def max_prompt_tokens(messages: Iterable[Mapping[str, str]]) -> int:
    """Upper bound of a prompt's tokens: every tokenizer needs at most one token a byte."""
    return TEMPLATE_TOKENS + sum(TURN_TOKENS + len(turn["content"].encode()) for turn in messages)


def estimated_prompt_tokens(messages: Iterable[Mapping[str, str]]) -> int:
    """Estimate of a prompt's tokens for usual text."""
    return sum(TURN_TOKENS + len(turn["content"].encode()) // BYTES_PER_TOKEN for turn in messages)


def cost(price: Price | None, tokens: Mapping[str, int]) -> float:
    """US dollars for prompt_tokens and completion_tokens; 0 if the price is unknown."""
    if price is None:
        return 0.0
    return (price.prompt * tokens["prompt_tokens"] + price.completion * tokens["completion_tokens"]) / MILLION


class Budget:
    """At most `limit` US dollars for all teachers together; None: no limit. `spent` was paid before."""

    def __init__(self, limit: float | None, spent: float) -> None:
        self.limit, self.spent, self.reserved = limit, spent, 0.0
        self._in_flight = 0
        self._recorded: asyncio.Event | None = None

    def fits(self, amount: float) -> bool:
        """Whether an amount can be reserved in addition to what is reserved."""
        return self.limit is None or self.spent + self.reserved + amount <= self.limit

    def reserve(self, amount: float, teacher: ApiTeacher) -> None:
        """Reserves an amount. Raises UserError if it would exceed the limit."""
        if not self.fits(amount):
            raise UserError(
                f"the budget is used up: {self.spent:.6f} of generate.budget_usd = {self.limit:.6g} USD are spent, and "
                f"the next request to teacher {teacher.name!r} can cost {amount:.6f}. All responses so far are kept. "
                "Raise generate.budget_usd and run again to resume."
            )
        self.reserved += amount
        self._in_flight += 1

    async def wait_and_reserve(self, amount: Callable[[], float], teacher: ApiTeacher) -> None:
        """Reserves an amount, after requests in flight have cost less than reserved if there is no room yet.

        The amount may change meanwhile, by what these requests have cost.
        """
        while not self.fits(amount()) and self._in_flight:
            self._recorded = self._recorded or asyncio.Event()
            await self._recorded.wait()
        self.reserve(amount(), teacher)

    def restore_reservation(self, amount: float) -> None:
        """Reserves again what an earlier run had reserved, which has counted as spent since."""
        self.spent -= amount
        self.reserved += amount
        self._in_flight += 1

    def record(self, reserved: float, paid: float) -> None:
        """Releases a reservation and counts what was paid."""
        self._in_flight -= 1
        self.reserved = self.reserved - reserved if self._in_flight else 0.0
        self.spent += paid
        if self._recorded is not None:
            self._recorded.set()
            self._recorded = None
