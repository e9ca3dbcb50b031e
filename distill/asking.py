"""Asking one teacher, of whatever kind: what its journal has is not asked again, the rest is, with a bar."""

import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from tqdm import tqdm

from distill import few_shot
from distill.answers import Answer, Request, Sampling, request_seed
from distill.errors import UserError
from distill.files import value_hash
from distill.journal import Journal
from distill.params import ApiTeacher, LocalTeacher, Runtime, Teacher

SCHEMA = 2  # of requests: a change of what is sent, which no other part of a request's id shows


@dataclass(frozen=True)
class Setup:
    """What asking takes beside a teacher, requests and sampling; none of it changes an API's answer.

    `environment` has the keys of APIs by the names that params give; `journals` is the folder of journals.
    """

    runtime: Runtime
    batch_size: int
    environment: Mapping[str, str]
    journals: Path


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
    if teacher.kind == "local":
        depends |= {
            "revision": teacher.revision,
            "sha256": teacher.sha256,
            "dtype": _dtype(setup.runtime),
            "batch_size": setup.batch_size,
        }
        if teacher.template is not None:
            depends |= {"template": few_shot.TEMPLATE}
    return Request(value_hash(depends)[:32], messages, seed)


def endpoint(teacher: Teacher) -> str:
    """Where a teacher answers: the address of an API, or `local`."""
    return "local" if teacher.kind == "local" else teacher.base_url


def ask(teacher: Teacher, requests: list[Request], sampling: Sampling, setup: Setup) -> dict[str, Answer]:
    """The answers of a teacher by request id, failures included.

    Every answer is in the teacher's journal before the next is waited for: what it has is not asked again,
    and a failure is. Raises UserError where asking cannot go on; the answers so far are kept.
    """
    where = {"teacher": teacher.name, "endpoint": endpoint(teacher)}
    with Journal(setup.journals / f"{teacher.name}-{value_hash(where)[:16]}.jsonl", where) as journal:
        answered = {item.id for item in requests if item.id in journal.answers}
        if len(answered) < len(requests):
            with tqdm(total=len(requests), initial=len(answered), desc=teacher.name, unit="answer") as bar:
                for some in _answers(teacher, requests, answered, sampling, setup):
                    journal.append(some)
                    bar.update(len(some))
        else:
            print(f"{teacher.name}: all {len(requests)} answers are in the journal already", file=sys.stderr)
        return {item.id: journal.latest[item.id] for item in requests}


def _answers(
    teacher: Teacher, requests: list[Request], answered: set[str], sampling: Sampling, setup: Setup
) -> Iterator[list[Answer]]:
    if teacher.kind == "local":
        yield from _ask_local(teacher, requests, answered, sampling, setup)
    else:
        yield from _ask_api(teacher, [item for item in requests if item.id not in answered], sampling, setup)


def _ask_local(
    teacher: LocalTeacher, requests: list[Request], answered: set[str], sampling: Sampling, setup: Setup
) -> Iterator[list[Answer]]:
    """Answers of a local teacher, batch by batch; a batch with an open request is decoded whole."""
    from distill import local_teacher, models  # torch takes seconds to import, and an API needs none of it

    models.prepare(setup.runtime.threads, sampling.seed)
    dtype = models.compute_dtype(setup.runtime.dtype)
    model, tokenizer = models.load(teacher.model, dtype, teacher.revision, teacher.sha256)
    if teacher.template is not None:
        tokenizer.chat_template = few_shot.TEMPLATE
    batches = local_teacher.batches(tokenizer, requests, setup.batch_size)
    todo = [batch for batch in batches if any(item.id not in answered for item in batch)]
    for answers in local_teacher.answer(model, tokenizer, todo, sampling):
        yield [answer for answer in answers if answer.id not in answered]


def _ask_api(teacher: ApiTeacher, requests: list[Request], sampling: Sampling, setup: Setup) -> Iterator[list[Answer]]:
    """Answers of an endpoint, in the order of arrival."""
    from distill import api_teacher

    key = setup.environment.get(teacher.api_key_env)
    if not key:
        raise UserError(
            f"teacher {teacher.name!r} needs a key in the environment variable {teacher.api_key_env}, which is not "
            f"set. Set it (for a server that wants none, to any word) and run again; nothing was sent."
        )
    yield from api_teacher.answer(teacher, key, requests, sampling)


def _dtype(runtime: Runtime) -> str:
    from distill import models

    return str(models.compute_dtype(runtime.dtype)).removeprefix("torch.")
