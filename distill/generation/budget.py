"""Money: what a request can cost at most is put aside before it is sent, and what it did cost is booked after."""

import asyncio
from collections.abc import Iterable, Mapping

from distill.core.errors import UserError
from distill.params.teachers import ApiTeacher, Price

MILLION = 1_000_000
TEMPLATE_TOKENS = 64  # of a chat template around all messages (some write the date and a system prompt of their own)
TURN_TOKENS = 16  # of a chat template around each message
BYTES_A_TOKEN = 4  # of usual text


def most_prompt_tokens(messages: Iterable[Mapping[str, str]]) -> int:
    """No tokenizer of ours cuts text finer than into bytes: the tokens that a prompt has at most."""
    return TEMPLATE_TOKENS + sum(TURN_TOKENS + len(turn["content"].encode()) for turn in messages)


def likely_prompt_tokens(messages: Iterable[Mapping[str, str]]) -> int:
    """The tokens that a prompt of usual text has, about."""
    return sum(TURN_TOKENS + len(turn["content"].encode()) // BYTES_A_TOKEN for turn in messages)


def cost(price: Price | None, tokens: Mapping[str, int]) -> float:
    """US dollars for so many prompt_tokens and completion_tokens; 0 where no price is known."""
    if price is None:
        return 0.0
    return (price.prompt * tokens["prompt_tokens"] + price.completion * tokens["completion_tokens"]) / MILLION


class Budget:
    """At most `limit` US dollars for all teachers together, None for no limit; `spent` is what was paid before."""

    def __init__(self, limit: float | None, spent: float) -> None:
        self.limit, self.spent, self.reserved = limit, spent, 0.0
        self._under_way = 0
        self._booked: asyncio.Event | None = None

    def fits(self, amount: float) -> bool:
        """Whether so much can be put aside beside what is."""
        return self.limit is None or self.spent + self.reserved + amount <= self.limit

    def reserve(self, amount: float, teacher: ApiTeacher) -> None:
        """Puts an amount aside. Raises UserError where it would pass the limit."""
        if not self.fits(amount):
            raise UserError(
                f"the budget is used up: of generate.budget_usd = {self.limit:.6g} USD {self.spent:.6f} are spent, and "
                f"the next request to teacher {teacher.name!r} can cost {amount:.6f}. All answers so far are kept; "
                "raise generate.budget_usd and run again to go on from here."
            )
        self.reserved += amount
        self._under_way += 1

    async def wait_and_reserve(self, amount: float, teacher: ApiTeacher) -> None:
        """Puts an amount aside, if need be after requests under way have turned out cheaper than they might."""
        while not self.fits(amount) and self._under_way:
            self._booked = self._booked or asyncio.Event()
            await self._booked.wait()
        self.reserve(amount, teacher)

    def take_up(self, amount: float) -> None:
        """Puts aside again what an earlier run had put aside, which counted as spent since."""
        self.spent -= amount
        self.reserved += amount
        self._under_way += 1

    def book(self, reserved: float, paid: float) -> None:
        """Takes back what was put aside and counts what was paid."""
        self._under_way -= 1
        self.reserved = self.reserved - reserved if self._under_way else 0.0
        self.spent += paid
        if self._booked is not None:
            self._booked.set()
            self._booked = None
