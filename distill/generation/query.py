"""Asking one teacher, of whatever kind: what its journal has is not asked again, the rest is, with a bar."""

import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tqdm import tqdm

from distill.core.errors import UserError
from distill.core.files import value_hash
from distill.generation.budget import Budget, cost
from distill.generation.completions import Answer, Request
from distill.generation.journal import TOKENS, Journal
from distill.modeling import few_shot
from distill.modeling.sampling import Sampling, request_seed
from distill.params.schema import Runtime
from distill.params.teachers import ApiTeacher, LocalTeacher, Teacher

SCHEMA = 3  # of requests: a change of what is sent, which no other part of a request's id shows


@dataclass(frozen=True)
class Setup:
    """What asking takes beside a teacher, requests and sampling; none of it changes an API's answer.

    `environment` has the keys of APIs by the names that params give; `journals` is the folder of journals;
    `needs` is generate.required_capabilities: a teacher without one is refused, or its rows are marked.
    `forecast`, where there is one, answers in place of the teachers: nothing is sent.
    """

    runtime: Runtime
    batch_size: int
    environment: Mapping[str, str]
    journals: Path
    needs: tuple[str, ...]
    budget: Budget
    forecast: "Callable[[Teacher, list[Request], Sampling], Asked] | None" = None


@dataclass(frozen=True)
class Asked:
    """The answers of a teacher by request id, failures included, and what was found out about an API.

    `probe` is what it does and what finding out took, None where nothing was; `degraded` what it lacks that the
    experiment needs.
    """

    answers: Mapping[str, Answer]
    probe: dict[str, Any] | None
    degraded: list[str]

    def __getitem__(self, request_id: str) -> Answer:
        return self.answers[request_id]


def request(
    teacher: Teacher,
    sampling: Sampling,
    setup: Setup,
    prompt_id: str,
    messages: list[dict[str, str]],
    sample: int = 0,
) -> Request:
    """The request for one sample of a prompt.

    Its seed depends on the run's seed, the prompt, the teacher and the sample. Its id is a hash of all that
    the answer depends on, so that no stale answer is ever taken for it, and of nothing else: no key, no
    timeout, no concurrency.
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
            "sha256": teacher.sha256,
            "dtype": _dtype(setup.runtime),
            "batch_size": setup.batch_size,
        }
        if teacher.chat_template is not None:
            depends |= {"template": few_shot.TEMPLATE}
    return Request(value_hash(depends)[:32], messages, seed)


def endpoint(teacher: Teacher) -> str:
    """Where a teacher answers: the address of an API, or `local`."""
    return "local" if teacher.kind == "local" else teacher.base_url


def journal(teacher: Teacher, folder: Path) -> Journal:
    """The journal of a teacher at its endpoint, whatever it was asked: answers to other params stay in it."""
    where = {"teacher": teacher.name, "endpoint": endpoint(teacher)}
    return Journal(journal_path(teacher, folder), where)


def journal_path(teacher: Teacher, folder: Path) -> Path:
    """The file of that journal."""
    return folder / f"{teacher.name}-{value_hash(endpoint(teacher))[:16]}.jsonl"


def budget(limit: float | None, teachers: Iterable[Teacher], folder: Path) -> Budget:
    """The budget, less what the journals of API teachers say was or may have been paid."""
    spent = 0.0
    for teacher in teachers:
        if teacher.kind == "openai" and journal_path(teacher, folder).exists():
            with journal(teacher, folder) as known:
                spent += cost(teacher.price, known.billed)
    return Budget(limit, spent)


def ask(teacher: Teacher, requests: list[Request], sampling: Sampling, setup: Setup) -> Asked:
    """Asks a teacher what its journal does not know; a failure is asked again.

    Every answer is in the journal as soon as it is there. Raises UserError where asking cannot go on; the
    answers so far are kept.
    """
    if setup.forecast is not None:
        return setup.forecast(teacher, requests, sampling)
    with journal(teacher, setup.journals) as known:
        todo = [item for item in requests if item.id not in known.answered]
        if todo:
            with tqdm(total=len(requests), initial=len(requests) - len(todo), desc=teacher.name, unit="answer") as bar:
                if teacher.kind == "local":
                    for some in _ask_local(teacher, requests, known.answered, sampling, setup):
                        known.append(some)
                        known.sync()
                        bar.update(len(some))
                else:
                    _ask_api(teacher, todo, sampling, setup, known, bar)
        elif requests:
            print(f"{teacher.name}: all {len(requests)} answers are in the journal already", file=sys.stderr)
        probed, degraded = _probed(teacher, setup, known) if teacher.kind == "openai" else (None, [])
        return Asked(known.latest, probed, degraded)


def _ask_local(
    teacher: LocalTeacher, requests: list[Request], answered: set[str], sampling: Sampling, setup: Setup
) -> Iterator[list[Answer]]:
    """Answers of a local teacher, batch by batch; a batch with an open request is decoded whole."""
    from distill.generation import class_labels, local
    from distill.modeling import loading
    from distill.modeling import (
        runtime as modeling_runtime,  # torch takes seconds to import, and an API needs none of it
    )

    modeling_runtime.prepare(setup.runtime.threads, sampling.seed)
    dtype = modeling_runtime.compute_dtype(setup.runtime.dtype)
    model, tokenizer = loading.load(teacher.model, dtype, teacher.revision, teacher.sha256, teacher.chat_template)
    batches = local.batches(tokenizer, requests, setup.batch_size)
    todo = [batch for batch in batches if any(item.id not in answered for item in batch)]
    answering = (
        class_labels.answer(model, tokenizer, todo, sampling.labels)
        if sampling.labels
        else local.answer(model, tokenizer, todo, sampling)
    )
    for answers in answering:
        yield [answer for answer in answers if answer.id not in answered]


def _ask_api(
    teacher: ApiTeacher, requests: list[Request], sampling: Sampling, setup: Setup, known: Journal, bar: "tqdm[Any]"
) -> None:
    """Finds out what an endpoint can do, where that is not known, and asks it, live or in batches."""
    from distill.generation.api import batch as batch_teacher
    from distill.generation.api import capabilities, live
    from distill.generation.api.client import Job

    key = setup.environment.get(teacher.api_key_env)
    if not key:
        raise UserError(
            f"teacher {teacher.name!r} needs a key in the environment variable {teacher.api_key_env}, which is not "
            f"set. Set it (for a server that wants none, to any word) and run again; nothing was sent."
        )
    found = capabilities.run(teacher, key, setup.budget, known)
    capabilities.required(teacher, found, setup.needs)
    job = Job(teacher, key, sampling, found["accepts_logprobs"], setup.budget, known, bar)
    (live if teacher.mode == "live" else batch_teacher).answer(job, requests)


def _probed(teacher: ApiTeacher, setup: Setup, known: Journal) -> tuple[dict[str, Any] | None, list[str]]:
    """What the journal says the teacher does, with the tokens of finding out, and which needs that leaves open."""
    from distill.generation.api import capabilities

    found = capabilities.facts(teacher, known)
    if found is None:
        return None, []
    usages = [answer.usage or {} for answer in capabilities.answers(teacher, known, found["accepts_logprobs"]).values()]
    tokens = {key: sum(usage.get(key, 0) for usage in usages) for key in TOKENS}
    return found | tokens, capabilities.required(teacher, found, setup.needs)


def _dtype(runtime: Runtime) -> str:
    from distill.modeling import runtime as modeling_runtime

    return str(modeling_runtime.compute_dtype(runtime.dtype)).removeprefix("torch.")
