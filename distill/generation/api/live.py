"""Live queries of an OpenAI-compatible chat endpoint through the openai SDK."""

import asyncio
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import openai

from distill.core.errors import UserError
from distill.generation.api.client import QueryJob, RequestScheduler
from distill.generation.api.failures import FailureCounts, failure
from distill.generation.api.http import sdk_client
from distill.generation.api.parsing import from_content
from distill.generation.completions import Request, failed_completion

SYNC_S = 0.1  # between two waits for the disk, so that it does not set the pace


def request_body(job: QueryJob, request: Request) -> dict[str, Any]:
    """The JSON of a request: every sampling parameter, whatever the server's defaults.

    A null in `extra_body` leaves a field out, for servers that refuse it.
    """
    sampling = job.sampling
    result: dict[str, Any] = {
        "model": job.teacher.model,
        "messages": request.messages,
        "max_tokens": sampling.max_tokens,
        "temperature": sampling.temperature,
        "top_p": sampling.top_p,
        "seed": request.seed,
        "n": 1,
        "frequency_penalty": 0.0,
        "presence_penalty": 0.0,
        "stream": False,
    }
    if job.log_probs:
        result |= {"logprobs": True, "top_logprobs": 2}
    result |= job.teacher.extra_body
    return {key: value for key, value in result.items() if value is not None}


def complete(job: QueryJob, requests: Iterable[Request]) -> None:
    """Sends the requests, `concurrency` of the teacher at once, and journals each completion as it arrives.

    A request that fails after all its retries has a completion with an error. Errors that no retry fixes (a refused
    key, an unreachable endpoint, an unknown model, an empty account, a used-up budget) and failures of one class that
    pile up raise UserError, after the completions in flight have arrived.
    """
    asyncio.run(_complete(job, requests))


async def _complete(job: QueryJob, requests: Iterable[Request]) -> None:
    waiting = iter(requests)
    scheduler, failures = RequestScheduler(job), FailureCounts(job)
    async with sdk_client(job) as sdk:

        async def send_next() -> bool:
            request = next(waiting, None) if scheduler.stopped is None else None
            if request is None:
                return False
            try:
                await _send(sdk, job, scheduler, request, failures)
                job.bar.update()
            except UserError as error:
                scheduler.stopped = scheduler.stopped or error
            return True

        async def worker() -> None:
            while await send_next():
                pass

        async def syncing() -> None:
            while True:
                await asyncio.sleep(SYNC_S)
                await asyncio.to_thread(job.journal.sync)

        if scheduler.is_untried:
            await send_next()
        # twice the concurrency, so that requests that wait for a retry leave no slot empty
        workers = [asyncio.create_task(worker()) for _ in range(2 * job.teacher.concurrency)]
        background = asyncio.create_task(syncing())
        try:
            await asyncio.gather(*workers)
        finally:
            for task in (*workers, background):
                task.cancel()
            await asyncio.gather(*workers, background, return_exceptions=True)
    if scheduler.stopped is not None:
        raise scheduler.stopped


async def _send(
    sdk: openai.AsyncOpenAI, job: QueryJob, scheduler: RequestScheduler, request: Request, failures: FailureCounts
) -> None:
    """Journals the completion of one request. Raises UserError if all other requests would fail too."""
    in_flight = scheduler.track(request)
    fatal: UserError | None = None
    has_reply = False
    try:
        response = await scheduler.send(sdk, in_flight, request_body(job, request))
        has_reply = True
        completion = from_content(request, response.content, job.max_tokens, job.key)
    except openai.APIError as error:
        completion = failure(job, request, error, in_flight.attempts)
    except UserError as error:
        completion, fatal = failed_completion(request, "stopped", "the run stopped before it was sent"), error
    billed = scheduler.settle(in_flight, completion.usage, has_reply)
    job.journal.append([replace(completion, billed=billed)])
    fatal = fatal or failures.count(completion)
    if fatal is not None:
        raise fatal
