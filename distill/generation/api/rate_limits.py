"""How fast an endpoint is asked: so many requests and tokens a minute, fewer at once when it says too many."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from aiolimiter import AsyncLimiter

MINUTE = 60.0
BURST = 1.0  # seconds' worth of a rate that may go out at once: servers count in windows shorter than a minute


class Rate:
    """At most `per_minute` units a minute, evenly, first come first served; None: no limit."""

    def __init__(self, per_minute: int | None) -> None:
        self._bucket = None if per_minute is None else max(1.0, per_minute / MINUTE * BURST)
        self._limiter: AsyncLimiter | None = None
        if per_minute is not None and self._bucket is not None:
            self._limiter = AsyncLimiter(self._bucket, self._bucket / per_minute * MINUTE)
        self._turn = asyncio.Lock()

    async def take(self, units: float) -> None:
        """Waits until so many units may go. More than the bucket holds are taken bucket by bucket."""
        if self._limiter is None or self._bucket is None:
            return
        async with self._turn:
            while units > 0:
                await self._limiter.acquire(min(units, self._bucket))
                units -= self._bucket


class Gate:
    """Lets requests through, `most` at once at first.

    A 429 closes the gate for all until its Retry-After is over. Where more than a quarter of as many requests as
    may pass at once were refused, half as many may pass; each success lets one more pass, up to `most` (additive
    increase, multiplicative decrease: Chiu and Jain, 1989). A refusal now and then is noise: were it to halve the
    number, a server that refuses one in ten at random would be asked by a handful at a time.
    """

    def __init__(self, most: int) -> None:
        self.limit = float(most)
        self._most = most
        self._inside = 0
        self._opens_at = 0.0
        self._seen = self._refused = 0
        self._changed = asyncio.Condition()

    @asynccontextmanager
    async def passing(self) -> AsyncIterator[None]:
        """Waits for a place and holds it until the block ends."""
        async with self._changed:
            while True:
                pause = self._opens_at - time.monotonic()
                if pause > 0:
                    self._changed.release()
                    try:
                        await asyncio.sleep(pause)
                    finally:
                        await self._changed.acquire()
                elif self._inside < int(self.limit):
                    break
                else:
                    await self._changed.wait()
            self._inside += 1
        try:
            yield
        finally:
            async with self._changed:
                self._inside -= 1
                self._changed.notify(max(1, int(self.limit) - self._inside))

    def too_many(self, retry_after: float | None) -> None:
        """A request was answered by 429, with the seconds of its Retry-After or None."""
        if retry_after is not None:
            self._opens_at = max(self._opens_at, time.monotonic() + retry_after)
        self._refused += 1
        if self._refused > self.limit / 4:
            self.limit = max(1.0, self.limit / 2)
            self._seen = self._refused = 0
        self._count()

    def success(self) -> None:
        """A request was answered."""
        self.limit = min(float(self._most), self.limit + 1)
        self._count()

    def _count(self) -> None:
        self._seen += 1
        if self._seen >= self.limit:
            self._seen = self._refused = 0
