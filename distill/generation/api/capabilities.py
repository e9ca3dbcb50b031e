"""Capabilities of an API teacher, tested with five requests: servers silently drop parameters that they lack."""

import itertools
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from tqdm import tqdm

from distill.core.errors import UserError
from distill.core.files import value_hash
from distill.generation.api import live
from distill.generation.api.client import QueryJob
from distill.generation.api.failures import ADVICE, REFUSED_FIELDS
from distill.generation.completions import TOKENS, Completion, Request
from distill.generation.journal import Journal
from distill.modeling.sampling import Sampling
from distill.params.teachers import ApiTeacher

MESSAGES = [{"role": "user", "content": "Name an animal, a city, a colour and a number, each chosen at random."}]
MAX_NEW_TOKENS, MAX_THINKING_TOKENS = 24, 2048  # the second for a model that thinks before it responds
# by request name, hot at temperature 1 and cold at 0; the names are part of the ids in journals on disk
SEEDS = {"hot": 1, "hot again": 1, "hot otherwise": 2, "cold": 3, "cold again": 4}
PROBE_ORDER = (("hot",), ("hot again", "hot otherwise"), ("cold", "cold again"))
SETTINGS = tuple(itertools.product((True, False), (MAX_NEW_TOKENS, MAX_THINKING_TOKENS)))  # log_probs, max_new_tokens
MAX_ROUNDS = 3  # of requests that failed by chance
DESCRIPTIONS = {
    "no_logprobs": "returns no log-probability for each chosen token",
    "no_seed": "gives other responses to the same request and seed, or the same whatever the seed",
    "no_temperature": "responds alike at temperatures 1 and 0, or not always alike at 0",
    "no_usage": "does not report the tokens used",
}


def probe_requests(teacher: ApiTeacher, log_probs: bool, max_new_tokens: int = MAX_NEW_TOKENS) -> dict[str, Request]:
    """The five requests by name. Two of them differ in their name only, and should have equal responses."""
    depends: list[Any] = ["probe", teacher.base_url, teacher.model, teacher.extra_body, log_probs]
    if max_new_tokens != MAX_NEW_TOKENS:
        depends.append(max_new_tokens)
    return {name: Request(value_hash([*depends, name])[:32], MESSAGES, seed) for name, seed in SEEDS.items()}


def known_capabilities(teacher: ApiTeacher, journal: Journal) -> dict[str, bool] | None:
    """The teacher's capabilities by the journal's completions; None before the probe."""
    for log_probs, max_new_tokens in SETTINGS:
        requests = probe_requests(teacher, log_probs, max_new_tokens)
        completions = {name: journal.latest[item.id] for name, item in requests.items() if item.id in journal.completed}
        if len(completions) == len(SEEDS):
            return capabilities_from(completions) | {"accepts_logprobs": log_probs}
    return None


def probe_tokens(teacher: ApiTeacher, journal: Journal) -> dict[str, int]:
    """The tokens of all requests of the probe, failed ones too."""
    requests = (item for setting in SETTINGS for item in probe_requests(teacher, *setting).values())
    usages = [journal.latest[item.id].usage or {} for item in requests if item.id in journal.latest]
    return {key: sum(usage.get(key, 0) for usage in usages) for key in TOKENS}


def capabilities_from(completions: Mapping[str, Completion]) -> dict[str, bool]:
    """The capabilities that the five completions show."""
    text = {name: completion.response for name, completion in completions.items()}
    return {
        "logprobs": all(completion.logprobs or completion.margins for completion in completions.values()),
        "chosen_token_scored": all(completion.logprobs for completion in completions.values()),
        "seed_repeats": text["hot"] == text["hot again"] != text["hot otherwise"],
        "temperature_matters": text["cold"] == text["cold again"]
        and any(text[name] != text["cold"] for name in ("hot", "hot otherwise")),
        "usage": all(completion.usage for completion in completions.values()),
    }


def missing(capabilities: Mapping[str, bool]) -> list[str]:
    """The capabilities that the teacher lacks, as rows name them."""
    is_present = {
        "no_logprobs": capabilities["logprobs"] and capabilities["chosen_token_scored"],
        "no_seed": capabilities["seed_repeats"],
        "no_temperature": capabilities["temperature_matters"],
        "no_usage": capabilities["usage"],
    }
    return [name for name, present in is_present.items() if not present]


def probe(job: QueryJob) -> dict[str, bool]:
    """The capabilities, after sending the requests that the journal lacks. Raises UserError if these fail.

    The first request goes alone: a refusal of log-probabilities, or a model that thinks longer than a few tokens, is
    found by it. `job` has another sampling and bar than the probe.
    """
    teacher, journal = job.teacher, job.journal
    failure: dict[str, Any] | None = None
    max_new_tokens = MAX_NEW_TOKENS
    for log_probs in (True, False):
        for _ in range(MAX_ROUNDS):
            known = known_capabilities(teacher, journal)
            if known is not None:
                return known
            failure = _send_round(replace(job, log_probs=log_probs), max_new_tokens)
            kind = None if failure is None else failure["class"]
            if kind in REFUSED_FIELDS or (kind == "empty" and max_new_tokens == MAX_THINKING_TOKENS):
                break
            if kind == "empty":
                max_new_tokens = MAX_THINKING_TOKENS
    known = known_capabilities(teacher, journal)
    if known is not None:
        return known
    assert failure is not None
    advice = ADVICE.get(failure["class"], "Fix the server or the teacher's params.")
    raise UserError(
        f"teacher {teacher.name!r} ({teacher.base_url}) must respond to the requests that test its capabilities, got "
        f"{failure['class']}: {failure['message']}. {advice} Then run again. Nothing else was sent."
    )


def _send_round(job: QueryJob, max_new_tokens: int) -> dict[str, Any] | None:
    """Sends the probe's requests that have no response, the first alone. Returns the first failure."""
    requests, journal = probe_requests(job.teacher, job.log_probs, max_new_tokens), job.journal
    for names in PROBE_ORDER:
        temperature = 0.0 if "cold" in names else 1.0
        sampling = Sampling(max_tokens=max_new_tokens, temperature=temperature, top_p=1.0, seed=0)
        todo = [requests[name] for name in names if requests[name].id not in journal.completed]
        if todo:
            with tqdm(total=len(todo), desc=f"{job.teacher.name}: capabilities", leave=False) as bar:
                live.complete(replace(job, sampling=sampling, bar=bar), todo)
        for item in todo:
            if item.id not in journal.completed:
                return journal.latest[item.id].error
    return None


def require_capabilities(teacher: ApiTeacher, capabilities: Mapping[str, bool], required: Iterable[str]) -> list[str]:
    """The required capabilities that the teacher lacks. Raises UserError if there are some and `on_missing` is fail."""
    lacking = [name for name in missing(capabilities) if name.removeprefix("no_") in required]
    if lacking and teacher.on_missing == "fail":
        raise UserError(
            f"teacher {teacher.name!r} ({teacher.base_url}) "
            + "; it ".join(DESCRIPTIONS[name] for name in lacking)
            + f". generate.required_capabilities has {', '.join(name.removeprefix('no_') for name in lacking)}. Choose "
            "another server or teacher, remove it from generate.required_capabilities, or set `on_missing: degrade` to "
            "mark the rows."
        )
    return lacking
