"""Any OpenAI-compatible chat endpoint as a teacher, through the openai SDK."""

import asyncio
import json
import math
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import openai

from distill.core.errors import UserError
from distill.generation.api.client import Account, Job, client
from distill.generation.completions import FINISHED, Answer, Request, failed
from distill.generation.journal import TOKENS

NO_LOG_PROB = -9000.0  # servers write -9999 for a token outside their best ones: not a log-probability
SYNC_S = 0.1  # between two waits for the disk, so that it sets no pace


def body(job: Job, request: Request) -> dict[str, Any]:
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


def answer(job: Job, requests: Iterable[Request]) -> None:
    """Asks the requests, `concurrency` of the teacher at a time, and journals each answer as it arrives.

    A request that fails after all its retries is an answer with an error. What no retry mends (a refused
    key, an unreachable endpoint, an unknown model, an empty account, a used-up budget) raises UserError, after
    the answers that were on their way. The key is in no message.
    """
    asyncio.run(_answer(job, requests))


async def _answer(job: Job, requests: Iterable[Request]) -> None:
    waiting = iter(requests)
    account = Account(job)
    async with client(job) as sdk:

        async def worker() -> None:
            while account.stopped is None and (request := next(waiting, None)) is not None:
                try:
                    await _ask(sdk, job, account, request)
                    job.bar.update()
                except UserError as error:
                    account.stopped = account.stopped or error

        async def syncing() -> None:
            while True:
                await asyncio.sleep(SYNC_S)
                await asyncio.to_thread(job.journal.sync)

        # twice as many as may be under way, so that those which wait for a retry leave no place empty
        workers = [asyncio.create_task(worker()) for _ in range(2 * job.teacher.concurrency)]
        background = asyncio.create_task(syncing())
        try:
            await asyncio.gather(*workers)
        finally:
            for task in (*workers, background):
                task.cancel()
            await asyncio.gather(*workers, background, return_exceptions=True)
    if account.stopped is not None:
        raise account.stopped


async def _ask(sdk: openai.AsyncOpenAI, job: Job, account: Account, request: Request) -> None:
    """Journals the answer to one request. Raises UserError, too, where no other request will fare better."""
    ticket = account.ticket(request)
    fatal: UserError | None = None
    replied = False
    try:
        response = await account.send(sdk, ticket, body(job, request))
        replied = True
        result = from_text(request, response.content)
    except openai.APIError as error:
        result, fatal = failure(job, request, error, ticket.attempts)
    except UserError as error:
        result, fatal = failed(request, "stopped", "asking stopped before it was sent"), error
    job.journal.append([replace(result, billed=account.settle(ticket, result.usage, replied))])
    if fatal is not None:
        raise fatal


def failure(job: Job, request: Request, error: openai.APIError, attempts: int) -> tuple[Answer, UserError | None]:
    """What an error of the SDK says about a request and, where it will meet all others too, the message for it."""
    teacher, key = job.teacher, job.key
    said = str(error.__cause__ or error if isinstance(error, openai.APIConnectionError) else error).replace(key, "***")
    who = f"{teacher.base_url} of teacher {teacher.name!r}"
    kept = "all answers so far are kept"
    kind, fatal = "invalid_response", None
    if isinstance(error, openai.APITimeoutError):
        kind, said = "timeout", f"no answer within {teacher.timeout_s:g} s"
    elif isinstance(error, openai.APIConnectionError):
        kind = "connection"
        fatal = (
            f"{who} cannot be reached ({said[:150]}), tried {attempts or 1} times. Is the server up? "
            f"Run again to go on; {kept}."
        )
    elif isinstance(error, openai.APIStatusError):
        kind = "rate_limit" if error.status_code == 429 else f"http_{error.status_code}"
        if error.status_code in (401, 403):
            fatal = (
                f"{who} refused the key ({error.status_code}). "
                f"Check the environment variable {teacher.api_key_env}; {kept}."
            )
        elif error.status_code == 404:
            fatal = (
                f"{who} does not know model {teacher.model!r} (404: {said[:150]}). "
                f"Check `model` and `base_url` (most end in /v1); {kept}."
            )
        elif error.code == "insufficient_quota":
            kind, fatal = "quota", f"{who}: the account has no quota left. Fill it up and run again; {kept}."
    code = None if error.code is None else str(error.code)[:60].replace(key, "***")
    return failed(request, kind, said, code, attempts), None if fatal is None else UserError(fatal)


def from_text(request: Request, text: bytes) -> Answer:
    """The answer that a server's 200 holds; a failed one where it is no chat completion after all."""
    try:
        return from_completion(request, json.loads(text))
    except ValueError:
        return failed(request, "invalid_response", f"not JSON: {text[:100].decode(errors='replace')!r}")


def from_completion(request: Request, completion: Any) -> Answer:
    """The answer that a chat completion holds, as JSON has it; a failed one where it is none."""
    usage = _usage(completion)
    try:
        choice = completion["choices"][0]
        content, finish, scored = choice["message"].get("content"), choice.get("finish_reason"), choice.get("logprobs")
        tokens = (scored or {}).get("content") or []
    except (LookupError, TypeError, AttributeError):
        said = completion.get("error") if isinstance(completion, dict) else completion
        return failed(request, "invalid_response", f"no choices in the answer; error: {said}", usage=usage)
    if content is None and finish == "content_filter":
        content = ""
    if not isinstance(content, str):
        return failed(request, "empty", f"the message has no content (finish_reason {finish!r})", usage=usage)
    return Answer(
        id=request.id,
        response=content.encode(errors="replace").decode(),  # a lone surrogate is no text
        finish_reason=finish if finish in FINISHED else "other",
        logprobs=_rounded([_log_prob(token) for token in tokens]),
        usage=usage,
        error=None,
        margins=_rounded([_margin(token) for token in tokens]),
    )


def _usage(completion: Any) -> dict[str, int] | None:
    usage = completion.get("usage") if isinstance(completion, dict) else None
    if not isinstance(usage, dict) or not all(isinstance(usage.get(key), int) for key in TOKENS):
        return None
    return {key: usage[key] for key in TOKENS}


def _rounded(values: list[float | None]) -> list[float] | None:
    """The values; None where there are none, or one of them is not known."""
    known = [round(value, 4) for value in values if value is not None]
    return known if known and len(known) == len(values) else None


def _log_prob(token: Any) -> float | None:
    value = token.get("logprob") if isinstance(token, dict) else None
    return float(value) if isinstance(value, int | float) and math.isfinite(value) and value > NO_LOG_PROB else None


def _margin(token: Any) -> float | None:
    """Log-probability of the best token minus that of the second best, in nats."""
    tops = token.get("top_logprobs") if isinstance(token, dict) else None
    best = sorted((value for value in map(_log_prob, tops or []) if value is not None), reverse=True)
    return best[0] - best[1] if len(best) > 1 else None
