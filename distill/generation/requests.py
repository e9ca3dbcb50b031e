"""Requests to a teacher, each with an id of all that its response depends on, and the settings of a run's queries."""

import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from distill.core.files import value_hash
from distill.generation.budget import Budget
from distill.generation.completions import Request
from distill.generation.teacher_journals import endpoint, identity
from distill.modeling import few_shot
from distill.modeling.sampling import Sampling, request_seed
from distill.modeling.templates import Messages
from distill.params.schema import Runtime
from distill.params.teachers import Teacher

if TYPE_CHECKING:
    from distill.generation.query import QueryResult

SCHEMA = 3  # of requests: a change of what is sent that no other part of a request's id shows


@dataclass(frozen=True)
class QueryContext:
    """Settings of a run that are the same for all teachers. None of them changes the response of an API.

    `environment` has the keys of APIs under the names in params. `journals` is the folder of journals. A teacher
    without one of `required_capabilities` is refused, or its rows are marked. `dry_run`, if not None, returns
    placeholders in place of the teachers, and nothing is sent. More failures than `max_failed_fraction` of a query are
    refused. A batch of a local teacher has at most `batch_size` rows and `batch_tokens` tokens.
    """

    runtime: Runtime
    batch_size: int
    environment: Mapping[str, str]
    journals: Path
    required_capabilities: tuple[str, ...]
    budget: Budget
    dry_run: "Callable[[Teacher, list[Request], Sampling], QueryResult] | None" = None
    max_failed_fraction: float = 1.0
    batch_tokens: int = sys.maxsize
    identities: dict[str, str | None] = field(default_factory=dict)  # of local teachers by name, as they are needed


def build_request(
    teacher: Teacher, sampling: Sampling, context: QueryContext, prompt_id: str, messages: Messages, sample: int = 0
) -> Request:
    """The request for one sample of a prompt.

    Its seed depends on the run's seed, the teacher, the prompt and the sample. Its id is a hash of everything that
    the response depends on, so a stale response is never reused. It depends on nothing else: no key, timeout or
    concurrency. The names in the hash stay as they are, since journals on disk have these ids.
    """
    seed = request_seed(sampling.seed, f"{teacher.name}/{prompt_id}/{sample}")
    depends = {
        "schema": SCHEMA,
        "endpoint": endpoint(teacher),
        "model": teacher.model,
        "messages": messages,
        "max_tokens": sampling.max_tokens,
        "temperature": sampling.temperature,
        "top_p": sampling.top_p,
        "seed": seed,
        "sample": sample,
    }
    if sampling.labels:
        depends |= {"labels": list(sampling.labels)}
    if teacher.kind == "openai":
        depends |= {"extra": teacher.extra_body}
    else:
        depends |= {
            "revision": teacher.revision,
            "sha256": teacher.sha256 or identity(teacher, context.identities),
            "dtype": _dtype(context.runtime),
            "batch_size": context.batch_size,
        }
        if teacher.chat_template is not None:
            depends |= {"template": few_shot.TEMPLATE}
    return Request(value_hash(depends)[:32], messages, seed)


def _dtype(runtime: Runtime) -> str:
    from distill.modeling import runtime as modeling_runtime

    return modeling_runtime.dtype_name(modeling_runtime.compute_dtype(runtime.dtype))
