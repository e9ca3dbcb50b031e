"""Pace of requests to an endpoint."""

import asyncio
import time

import pytest
from chat_server import Reply, chat_server
from query_run import query_teacher, teacher

from distill.generation.api import capabilities
from distill.generation.api.rate_limits import AdaptiveConcurrency, RateLimiter

PROBES = len(capabilities.SEEDS)


async def seconds(rate: RateLimiter, *units: float) -> float:
    start = time.monotonic()
    await asyncio.gather(*(rate.acquire(number) for number in units))
    return time.monotonic() - start


def test_requests_a_minute_are_spread_evenly():
    assert asyncio.run(seconds(RateLimiter(1200), *[1] * 20)) < 0.3  # one second's worth goes at once
    assert 0.9 < asyncio.run(seconds(RateLimiter(1200), *[1] * 40)) < 2.5


def test_more_tokens_than_the_bucket_holds_wait():
    assert 0.9 < asyncio.run(seconds(RateLimiter(60_000), 2000)) < 2.5


def test_no_limit_waits_for_nothing():
    assert asyncio.run(seconds(RateLimiter(None), *[1e9] * 100)) < 0.2


async def at_once(concurrency: AdaptiveConcurrency, tasks: int) -> int:
    inside = maximum = 0

    async def one() -> None:
        nonlocal inside, maximum
        async with concurrency.slot():
            inside += 1
            maximum = max(maximum, inside)
            await asyncio.sleep(0.005)
            inside -= 1

    await asyncio.gather(*(one() for _ in range(tasks)))
    return maximum


def test_requests_in_flight_stay_within_the_limit():
    assert asyncio.run(at_once(AdaptiveConcurrency(7), 40)) == 7


def test_many_refusals_halve_the_limit_until_successes():
    concurrency = AdaptiveConcurrency(16)
    for _ in range(4):
        concurrency.on_rate_limited(None)
    assert concurrency.limit == 16
    concurrency.on_rate_limited(None)
    assert concurrency.limit == 8
    for _ in range(3):
        concurrency.on_rate_limited(None)
    assert concurrency.limit == 4
    assert asyncio.run(at_once(concurrency, 20)) == 4
    for _ in range(20):
        concurrency.on_success()
    assert concurrency.limit == 16


def test_a_refusal_in_ten_is_noise():
    concurrency = AdaptiveConcurrency(16)
    for number in range(1000):
        concurrency.on_rate_limited(None) if number % 10 == 0 else concurrency.on_success()
        assert concurrency.limit == 16


def test_the_limit_never_falls_below_one():
    concurrency = AdaptiveConcurrency(2)
    for _ in range(20):
        concurrency.on_rate_limited(None)
    assert concurrency.limit == 1
    assert asyncio.run(at_once(concurrency, 3)) == 1


@pytest.mark.parametrize("header", ["Retry-After", "retry-after-ms"])
def test_a_refusal_with_a_time_makes_all_wait(tmp_path, header):
    times = []

    def script(number, _):
        times.append(time.monotonic())
        wait = "1" if header == "Retry-After" else "1000"
        return Reply(429, "{}", {header: wait}) if number == PROBES + 4 else None

    with chat_server(script, delay=0.01) as server:
        query_teacher(tmp_path, teacher(server.url, concurrency=3), 30)
    late = [moment - times[PROBES + 4] for moment in times[PROBES + 5 :]]
    assert sum(wait < 0.95 for wait in late) <= 6  # those in flight
    assert len(times) == PROBES + 31
