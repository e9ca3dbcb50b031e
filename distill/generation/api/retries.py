"""Pauses before a request is sent again."""

import random
import time
from email.utils import parsedate_to_datetime

import httpx2

RETRIED_STATUSES = (408, 409, 429)  # and those from 500 on, like the SDK
# AdaptiveConcurrency slows all requests together, so one need not wait as long as in the SDK, which doubles from 0.5 s.
FIRST_RETRY_S, RETRY_FACTOR = 0.25, 1.5
FIRST_RECONNECT_S, RECONNECT_FACTOR = 0.5, 2.0  # a server that restarts takes a while
MAX_RETRY_S = 8.0


def may_pass(response: httpx2.Response) -> bool:
    """Whether an error may pass, by the server's advice or else by its status."""
    advice = response.headers.get("x-should-retry")
    is_retried = response.status_code in RETRIED_STATUSES or response.status_code >= 500
    return advice == "true" or (advice != "false" and is_retried)


def retry_pause(attempts: int) -> float:
    """Seconds before the next attempt after an error of the server, which did not say how long to wait."""
    return _backoff(FIRST_RETRY_S, RETRY_FACTOR, attempts)


def reconnect_pause(attempts: int) -> float:
    """Seconds before the next attempt after a lost connection."""
    return _backoff(FIRST_RECONNECT_S, RECONNECT_FACTOR, attempts)


def retry_after(response: httpx2.Response) -> float | None:
    """Seconds to wait, from retry-after-ms or Retry-After (seconds or a date); None without either."""
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
            except (ValueError, TypeError, OverflowError):
                continue
        break
    return seconds if seconds is not None and seconds > 0 else None


def _backoff(first: float, factor: float, attempts: int) -> float:
    """Seconds after that many attempts, reduced by up to a quarter at random, so that retries are spread out."""
    return min(first * factor ** (attempts - 1), MAX_RETRY_S) * (1 - random.random() / 4)
