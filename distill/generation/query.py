"""Query one teacher of any kind: completions in its journal are reused, the other requests are sent."""

import sys
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from tqdm import tqdm

from distill.core.errors import UserError
from distill.generation.completions import Completion, Request
from distill.generation.journal import Journal
from distill.generation.requests import QueryContext
from distill.generation.teacher_journals import open_journal
from distill.modeling.sampling import Sampling
from distill.modeling.templates import Messages, require_renderable
from distill.params.teachers import ApiTeacher, LocalTeacher, Teacher


@dataclass(frozen=True)
class QueryResult:
    """The completions of a teacher by request id, including failures.

    `probe` has the capabilities of an API and the tokens of the probe, None without a probe. `missing_capabilities`
    are required ones that the teacher lacks, as rows name them in `degraded`.
    """

    completions: Mapping[str, Completion]
    probe: dict[str, Any] | None
    missing_capabilities: list[str]

    def __getitem__(self, request_id: str) -> Completion:
        return self.completions[request_id]


def require_local_prompts(teachers: list[Teacher], prompts: list[Messages]) -> None:
    """Render all prompts by the templates of local teachers before any API is paid. Raises UserError for a failure.

    A teacher without prompts is not loaded.
    """
    queried = [teacher for teacher in teachers if teacher.prompt_fraction > 0]
    if {teacher.kind for teacher in queried} == {"local", "openai"}:
        from distill.modeling import loading

        for teacher in queried:
            if teacher.kind == "local":
                require_renderable(loading.load_teacher_tokenizer(teacher), prompts)


def query(teacher: Teacher, requests: list[Request], sampling: Sampling, context: QueryContext) -> QueryResult:
    """Sends the requests without a completion in the teacher's journal, and those that failed.

    Each completion is in the journal as soon as it arrives. Raises UserError if the query cannot continue or too many
    requests failed; the completions so far are kept.
    """
    if context.dry_run is not None:
        return context.dry_run(teacher, requests, sampling)
    with open_journal(teacher, context.journals) as journal:
        todo = [request for request in requests if request.id not in journal.completed]
        if todo:
            done = len(requests) - len(todo)
            with tqdm(total=len(requests), initial=done, desc=teacher.name, unit="response") as bar:
                if teacher.kind == "local":
                    for completions in _query_local(teacher, requests, journal.completed, sampling, context):
                        journal.append(completions)
                        journal.sync()
                        bar.update(len(completions))
                else:
                    _query_api(teacher, todo, sampling, context, journal, bar)
        elif requests:
            print(f"{teacher.name}: all {len(requests)} responses are in the journal already", file=sys.stderr)
        _require_responses(teacher, requests, journal, context.max_failed_fraction)
        probe, missing = _capabilities(teacher, context, journal) if teacher.kind == "openai" else (None, [])
        return QueryResult(journal.latest, probe, missing)


def _query_local(
    teacher: LocalTeacher, requests: list[Request], completed: set[str], sampling: Sampling, context: QueryContext
) -> Iterator[list[Completion]]:
    """New completions of a local teacher as they are finished. A batch with an open request is decoded in full."""
    # torch takes seconds to import, and APIs do not need it
    from distill.generation import class_labels, local
    from distill.modeling import loading
    from distill.modeling import runtime as modeling_runtime

    modeling_runtime.prepare(context.runtime.threads, sampling.seed)
    dtype = modeling_runtime.compute_dtype(context.runtime.dtype)
    model, tokenizer = loading.load_teacher(teacher, dtype)
    require_renderable(tokenizer, [request.messages for request in requests])
    limits = local.BatchLimits(
        context.batch_size, context.batch_tokens, sampling.max_tokens, max(1, len(sampling.labels))
    )
    batches = local.split_batches(tokenizer, requests, limits)
    todo = [batch for batch in batches if any(request.id not in completed for request in batch)]
    completions = (
        class_labels.complete(model, tokenizer, todo, sampling.labels)
        if sampling.labels
        else local.complete(model, tokenizer, todo, sampling)
    )
    for finished in completions:
        yield [completion for completion in finished if completion.id not in completed]


def _query_api(
    teacher: ApiTeacher,
    requests: list[Request],
    sampling: Sampling,
    context: QueryContext,
    journal: Journal,
    bar: "tqdm[Any]",
) -> None:
    """Probes the capabilities of an endpoint, if unknown, and sends it the requests, live or in batches."""
    from distill.generation.api import batch, capabilities, live
    from distill.generation.api.client import QueryJob
    from distill.generation.api.http import proxy_variables
    from distill.generation.api.secrets import api_key

    key = api_key(teacher, context.environment)
    proxies = proxy_variables(teacher, context.environment)
    job = QueryJob(teacher, key, sampling, True, context.budget, journal, bar, proxies)
    known = capabilities.probe(job)
    capabilities.require_capabilities(teacher, known, context.required_capabilities)
    job = replace(job, log_probs=known["accepts_logprobs"])
    (live if teacher.mode == "live" else batch).complete(job, requests)


def _require_responses(teacher: Teacher, requests: list[Request], journal: Journal, max_failed_fraction: float) -> None:
    failures = [
        journal.latest[request.id].error or {}
        for request in requests
        if request.id not in journal.completed and request.id in journal.latest
    ]
    if len(failures) <= max_failed_fraction * len(requests):
        return
    counts = Counter(failure["class"] for failure in failures)
    listed = ", ".join(f"{name} {count}" for name, count in counts.most_common())
    raise UserError(
        f"teacher {teacher.name!r} must respond to all but {max_failed_fraction:g} of its requests "
        f"(generate.max_failed_fraction), got {len(failures)} failures of {len(requests)} ({listed}). One of them: "
        f"{next(item['message'] for item in failures if item['class'] == counts.most_common()[0][0])}. All responses "
        "so far are kept. Run again to send the failed requests again, or raise the fraction."
    )


def _capabilities(
    teacher: ApiTeacher, context: QueryContext, journal: Journal
) -> tuple[dict[str, Any] | None, list[str]]:
    """The capabilities in the journal with the tokens of the probe, and the required ones that are missing."""
    from distill.generation.api import capabilities

    known = capabilities.known_capabilities(teacher, journal)
    if known is None:
        return None, []
    return known | capabilities.probe_tokens(teacher, journal), capabilities.require_capabilities(
        teacher, known, context.required_capabilities
    )
