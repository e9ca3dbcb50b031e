"""Failures of requests: their completions, and those that stop a run because all other requests would meet them."""

from collections import Counter

import openai

from distill.core.errors import UserError
from distill.generation.api.client import QueryJob
from distill.generation.api.parsing import error_text
from distill.generation.api.secrets import shown
from distill.generation.completions import Completion, Request, failed_completion

MIN_PILE = 10  # failures of one class stop a run if they are more than half of its requests
OUT_OF_CREDIT = ("insufficient_quota", "billing_hard_limit_reached", "insufficient_balance")
REFUSED_FIELDS = ("http_400", "http_422")
ADVICE = {
    **dict.fromkeys(REFUSED_FIELDS, "Leave out a field that the server refuses: null in extra_body, as {seed: null}."),
    "timeout": "Raise timeout_s or lower concurrency.",
    "rate_limit": "Lower requests_per_minute, tokens_per_minute or concurrency.",
}


class FailureCounts:
    """The requests of one job that ended, by class of failure."""

    def __init__(self, job: QueryJob) -> None:
        self._job = job
        self._failures: Counter[str] = Counter()
        self._num_ended = 0

    def count(self, completion: Completion) -> UserError | None:
        """Counts the end of a request. Returns the reason to stop the run, if failures of its class pile up."""
        self._num_ended += 1
        if completion.error is None:
            return None
        kind, teacher = completion.error["class"], self._job.teacher
        self._failures[kind] += 1
        if fatal := fatal_message(self._job, kind, completion.error["message"], completion.error["attempts"]):
            return UserError(fatal)
        number, advice = self._failures[kind], ADVICE.get(kind, "Fix the server or the teacher's params.")
        if number < MIN_PILE or 2 * number <= self._num_ended:
            return None
        return UserError(
            f"{teacher.base_url} of teacher {teacher.name!r} fails: {number} of {self._num_ended} requests ended as "
            f"{kind} ({completion.error['message']}). {advice} "
            "All responses so far are kept; run again to resume."
        )


def failure(job: QueryJob, request: Request, error: openai.APIError, attempts: int) -> Completion:
    """The completion for an error of the SDK."""
    kind, code = "invalid_response", None
    message = shown(error.__cause__ or error, job.key)
    if isinstance(error, openai.APITimeoutError):
        kind, message = "timeout", f"no response within {job.teacher.timeout_s:g} s"
    elif isinstance(error, openai.APIConnectionError):
        kind = "connection"
    elif isinstance(error, openai.APIStatusError):
        kind = "rate_limit" if error.status_code == 429 else f"http_{error.status_code}"
        message = error_text(error.body or error.response.text or "no reason given", job.key)
        code = None if error.code is None else shown(error.code, job.key)
        if error.status_code not in (401, 403, 404) and code in OUT_OF_CREDIT:
            kind = "quota"
    return failed_completion(request, kind, message, code, attempts)


def fatal_message(job: QueryJob, kind: str, reason: str, attempts: int) -> str | None:
    """The message for a failure that all requests of the job would meet; None for any other failure."""
    teacher = job.teacher
    server, kept = f"{teacher.base_url} of teacher {teacher.name!r}", "all responses so far are kept"
    if kind == "connection":
        proxy = f" through the proxy in {job.proxies}, which may be wrong" if job.proxies else ""
        return (
            f"{server} cannot be reached{proxy} ({reason}), tried {attempts or 1} times. Is the server up? "
            f"Run again to resume; {kept}."
        )
    if kind in ("http_401", "http_403"):
        return (
            f"{server} refused the key ({kind.removeprefix('http_')}: {reason}). "
            f"Check the environment variable {teacher.api_key_env}; {kept}."
        )
    if kind == "http_404":
        return (
            f"{server} does not know model {teacher.model!r} (404: {reason}). "
            f"Check `model` and `base_url` (most end in /v1); {kept}."
        )
    if kind in ("quota", "http_402"):
        return f"{server}: the account has no quota left ({reason}). Add credit and run again; {kept}."
    if kind.startswith("http_3"):
        return f"{server} redirects without end ({kind.removeprefix('http_')}). Check `base_url`; {kept}."
    return None
