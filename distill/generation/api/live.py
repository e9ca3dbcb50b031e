"""Live queries of an OpenAI-compatible chat endpoint through the openai SDK."""

import asyncio
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import openai

from distill.core.errors import UserError
from distill.generation.api.client import QueryJob, RequestScheduler, sdk_client
from distill.generation.api.parsing import from_content
from distill.generation.completions import Completion, Request, failed_completion

SYNC_S = 0.1  # between two waits for the disk, so that it does not set the pace


def request_body(job: QueryJob, request: Request) -> dict[str, Any]:
    """The JSON of a request: every sampling parameter, whatever the server's defaults."""
    sampling = job.sampling
    result = {
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
    return result | job.teacher.extra_body


def complete(job: QueryJob, requests: Iterable[Request]) -> None:
    """Sends the requests, `concurrency` of the teacher at once, and journals each completion as it arrives.

    A request that fails after all its retries has a completion with an error. Errors that no retry fixes (a refused
    key, an unreachable endpoint, an unknown model, an empty account, a used-up budget) raise UserError, after the
    completions in flight have arrived. The key is in no message.
    """
    asyncio.run(_complete(job, requests))


async def _complete(job: QueryJob, requests: Iterable[Request]) -> None:
    waiting = iter(requests)
    scheduler = RequestScheduler(job)
    async with sdk_client(job) as sdk:

        async def worker() -> None:
            while scheduler.stopped is None and (request := next(waiting, None)) is not None:
                try:
                    await _send(sdk, job, scheduler, request)
                    job.bar.update()
                except UserError as error:
                    scheduler.stopped = scheduler.stopped or error

        async def syncing() -> None:
            while True:
                await asyncio.sleep(SYNC_S)
                await asyncio.to_thread(job.journal.sync)

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


async def _send(sdk: openai.AsyncOpenAI, job: QueryJob, scheduler: RequestScheduler, request: Request) -> None:
    """Journals the completion of one request. Raises UserError if all other requests would fail too."""
    in_flight = scheduler.track(request)
    fatal: UserError | None = None
    has_reply = False
    try:
        response = await scheduler.send(sdk, in_flight, request_body(job, request))
        has_reply = True
        completion = from_content(request, response.content)
    except openai.APIError as error:
        completion, fatal = failure(job, request, error, in_flight.attempts)
    except UserError as error:
        completion, fatal = failed_completion(request, "stopped", "the run stopped before it was sent"), error
    billed = scheduler.settle(in_flight, completion.usage, has_reply)
    job.journal.append([replace(completion, billed=billed)])
    if fatal is not None:
        raise fatal


def failure(
    job: QueryJob, request: Request, error: openai.APIError, attempts: int
) -> tuple[Completion, UserError | None]:
    """The completion for an error of the SDK and, if all other requests would meet it too, its message."""
    cause = error.__cause__ or error if isinstance(error, openai.APIConnectionError) else error
    message = str(cause).replace(job.key, "***")
    kind = "invalid_response"
    if isinstance(error, openai.APITimeoutError):
        kind, message = "timeout", f"no response within {job.teacher.timeout_s:g} s"
    elif isinstance(error, openai.APIConnectionError):
        kind = "connection"
    elif isinstance(error, openai.APIStatusError):
        kind = "rate_limit" if error.status_code == 429 else f"http_{error.status_code}"
        if error.status_code not in (401, 403, 404) and error.code == "insufficient_quota":
            kind = "quota"
    code = None if error.code is None else str(error.code)[:60].replace(job.key, "***")
    fatal = _fatal_message(job, kind, message[:150], attempts)
    return failed_completion(request, kind, message, code, attempts), None if fatal is None else UserError(fatal)


def _fatal_message(job: QueryJob, kind: str, reason: str, attempts: int) -> str | None:
    """The message for a failure that all requests of the job would meet; None for any other failure."""
    teacher = job.teacher
    server, kept = f"{teacher.base_url} of teacher {teacher.name!r}", "all responses so far are kept"
    if kind == "connection":
        return (
            f"{server} cannot be reached ({reason}), tried {attempts or 1} times. Is the server up? "
            f"Run again to resume; {kept}."
        )
    if kind in ("http_401", "http_403"):
        return (
            f"{server} refused the key ({kind.removeprefix('http_')}). "
            f"Check the environment variable {teacher.api_key_env}; {kept}."
        )
    if kind == "http_404":
        return (
            f"{server} does not know model {teacher.model!r} (404: {reason}). "
            f"Check `model` and `base_url` (most end in /v1); {kept}."
        )
    if kind == "quota":
        return f"{server}: the account has no quota left. Add credit and run again; {kept}."
    return None
