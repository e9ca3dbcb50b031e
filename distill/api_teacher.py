"""Any OpenAI-compatible chat endpoint as a teacher, through the openai SDK."""

import asyncio
import math
from collections.abc import AsyncGenerator, Iterator
from typing import Any

import openai
from openai.types.chat import ChatCompletion

from distill.answers import FINISHED, Answer, Request, Sampling, failed
from distill.errors import UserError
from distill.params import ApiTeacher

NO_LOG_PROB = -9000.0  # servers write -9999 for a token outside their best ones: not a log-probability


def answer(teacher: ApiTeacher, key: str, requests: list[Request], sampling: Sampling) -> Iterator[list[Answer]]:
    """Yields answers as they arrive, `teacher.concurrency` requests at a time.

    A request that fails after the SDK's retries is an answer with an error. What no retry mends (a refused
    key, an unreachable endpoint, an unknown model, an empty account) raises UserError, after the answers that
    were on their way. The key is in no message.
    """
    with asyncio.Runner() as runner:
        stream = _stream(teacher, key, requests, sampling)

        async def some() -> list[Answer] | None:
            return await anext(stream, None)

        async def close() -> None:
            await stream.aclose()

        try:
            while (answers := runner.run(some())) is not None:
                yield answers
        finally:
            runner.run(close())


async def _stream(
    teacher: ApiTeacher, key: str, requests: list[Request], sampling: Sampling
) -> AsyncGenerator[list[Answer], None]:
    waiting = iter(requests)
    pending: set[asyncio.Task[Answer]] = set()
    fatal: UserError | None = None
    async with openai.AsyncOpenAI(
        api_key=key, base_url=teacher.base_url, timeout=teacher.timeout_s, max_retries=teacher.max_retries
    ) as client:
        try:
            while True:
                while fatal is None and len(pending) < teacher.concurrency:
                    request = next(waiting, None)
                    if request is None:
                        break
                    pending.add(asyncio.create_task(_ask(client, teacher, key, request, sampling)))
                if not pending:
                    break
                done, pending = await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)
                answers = []
                for task in done:
                    error = task.exception()
                    if isinstance(error, UserError):
                        fatal = error
                    else:
                        answers.append(task.result())
                if answers:
                    yield answers
            if fatal is not None:
                raise fatal
        finally:
            for task in pending:
                task.cancel()
            await asyncio.gather(*pending, return_exceptions=True)


async def _ask(
    client: openai.AsyncOpenAI, teacher: ApiTeacher, key: str, request: Request, sampling: Sampling
) -> Answer:
    def clean(error: BaseException) -> str:
        return str(error).replace(key, "***")

    try:
        completion: Any = await client.chat.completions.create(
            model=teacher.model,
            messages=request.messages,  # type: ignore[arg-type]
            max_tokens=sampling.max_tokens,
            temperature=sampling.temperature,
            top_p=sampling.top_p,
            seed=request.seed,
            n=1,
            frequency_penalty=0.0,
            presence_penalty=0.0,
            logprobs=True,
            top_logprobs=1,
            stream=False,
        )
    except (openai.AuthenticationError, openai.PermissionDeniedError) as error:
        raise UserError(
            f"{teacher.base_url} refused the key of teacher {teacher.name!r} ({error.status_code}). "
            f"Check the environment variable {teacher.api_key_env}; all answers so far are kept."
        ) from None
    except openai.NotFoundError as error:
        raise UserError(
            f"{teacher.base_url} does not know model {teacher.model!r} of teacher {teacher.name!r} (404: "
            f"{clean(error)[:150]}). Check `model` and `base_url` (most end in /v1); all answers so far are kept."
        ) from None
    except openai.APITimeoutError:
        return failed(request, "timeout", f"no answer within {teacher.timeout_s:g} s")
    except openai.APIConnectionError as error:
        raise UserError(
            f"{teacher.base_url} of teacher {teacher.name!r} cannot be reached "
            f"({clean(error.__cause__ or error)[:150]}), tried {teacher.max_retries + 1} times. Is the server up? "
            "All answers so far are kept; run again to go on."
        ) from None
    except openai.RateLimitError as error:
        if error.code == "insufficient_quota":
            raise UserError(
                f"{teacher.base_url}: the account of teacher {teacher.name!r} has no quota left. "
                "Fill it up and run again; all answers so far are kept."
            ) from None
        return failed(request, "rate_limit", clean(error))
    except openai.APIStatusError as error:
        return failed(request, f"http_{error.status_code}", clean(error))
    except (openai.APIError, ValueError) as error:
        return failed(request, "invalid_response", clean(error))
    return from_completion(request, completion)


def from_completion(request: Request, completion: Any) -> Answer:
    """The answer that a server's 200 holds; a failed one where it is no chat completion after all."""
    if not isinstance(completion, ChatCompletion):
        return failed(request, "invalid_response", f"not a chat completion: {str(completion)[:100]!r}")
    if not completion.choices:
        error = (completion.model_extra or {}).get("error")
        return failed(request, "invalid_response", f"no choices in the answer; error: {error}")
    choice = completion.choices[0]
    usage = completion.usage
    if choice.message is None or (choice.message.content is None and choice.finish_reason != "content_filter"):
        return failed(request, "empty", "the message has no content")
    return Answer(
        id=request.id,
        response=(choice.message.content or "").encode(errors="replace").decode(),  # a lone surrogate is no text
        finish_reason=choice.finish_reason if choice.finish_reason in FINISHED else "other",
        logprobs=_log_probs(choice.logprobs.content if choice.logprobs else None),
        usage=None
        if usage is None
        else {"prompt_tokens": usage.prompt_tokens, "completion_tokens": usage.completion_tokens},
        error=None,
    )


def _log_probs(tokens: Any) -> list[float] | None:
    """The chosen tokens' log-probabilities; None where there are none, or one of them is not a number to trust."""
    values = [token.logprob for token in tokens or []]
    if not values or not all(math.isfinite(value) and value > NO_LOG_PROB for value in values):
        return None
    return [round(value, 4) for value in values]
