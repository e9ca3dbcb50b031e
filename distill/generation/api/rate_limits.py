"""Pace of requests to an endpoint: limits per minute, and fewer requests at once when the server refuses."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from aiolimiter import AsyncLimiter

MINUTE = 60.0
BURST = 1.0  # seconds' worth of a rate that may go out at once: servers count in windows shorter than a minute


class RateLimiter:
    """At most `per_minute` units a minute, evenly, first come first served; None: no limit."""

    def __init__(self, per_minute: int | None) -> None:
        self._capacity = None if per_minute is None else max(1.0, per_minute / MINUTE * BURST)
        self._limiter: AsyncLimiter | None = None
        if per_minute is not None and self._capacity is not None:
            self._limiter = AsyncLimiter(self._capacity, self._capacity / per_minute * MINUTE)
        self._turn = asyncio.Lock()

    async def acquire(self, units: float) -> None:
        """Waits until that many units may go. More than the bucket holds are acquired bucket by bucket."""
        if self._limiter is None or self._capacity is None:
            return
        async with self._turn:
            while units > 0:
                await self._limiter.acquire(min(units, self._capacity))
                units -= self._capacity


class AdaptiveConcurrency:
    """Limit of requests in flight by additive increase, multiplicative decrease (AIMD, Chiu and Jain 1989).

    It starts at `maximum`. A 429 with a Retry-After pauses all requests until it is over. If more than a quarter of
    one limit's worth of requests were refused, the limit is halved; each success raises it by one, up to `maximum`.
    An occasional refusal is noise: if it halved the limit, a server that refuses one request in ten at random would
    get a handful at a time.
    """

    def __init__(self, maximum: int) -> None:
        self.limit = float(maximum)
        self._maximum = maximum
        self._in_flight = 0
        self._opens_at = 0.0
        self._num_replies = self._num_refused = 0
        self._changed = asyncio.Condition()

    @asynccontextmanager
    async def slot(self) -> AsyncIterator[None]:
        """Waits for a free slot and holds it until the block ends."""
        async with self._changed:
            while True:
                pause = self._opens_at - time.monotonic()
                if pause > 0:
                    self._changed.release()
                    try:
                        await asyncio.sleep(pause)
                    finally:
                        await self._changed.acquire()
                elif self._in_flight < int(self.limit):
                    break
                else:
                    await self._changed.wait()
            self._in_flight += 1
        try:
            yield
        finally:
            async with self._changed:
                self._in_flight -= 1
                self._changed.notify(max(1, int(self.limit) - self._in_flight))

    def on_rate_limited(self, retry_after: float | None) -> None:
        """Counts a reply of 429, with the seconds of its Retry-After or None."""
        if retry_after is not None:
            self._opens_at = max(self._opens_at, time.monotonic() + retry_after)
        self._num_refused += 1
        if self._num_refused > self.limit / 4:
            self.limit = max(1.0, self.limit / 2)
            self._num_replies = self._num_refused = 0
        self._count()

    def on_success(self) -> None:
        """Counts a successful reply."""
        self.limit = min(float(self._maximum), self.limit + 1)
        self._count()

    def _count(self) -> None:
        self._num_replies += 1
        if self._num_replies >= self.limit:
            self._num_replies = self._num_refused = 0
