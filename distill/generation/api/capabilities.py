"""Capabilities of an API teacher, tested with five requests: servers silently drop parameters that they lack."""

from collections.abc import Iterable, Mapping

from tqdm import tqdm

from distill.core.errors import UserError
from distill.core.files import value_hash
from distill.generation.api import live
from distill.generation.api.client import QueryJob
from distill.generation.budget import Budget
from distill.generation.completions import Completion, Request
from distill.generation.journal import Journal
from distill.modeling.sampling import Sampling
from distill.params.teachers import ApiTeacher

MESSAGES = [{"role": "user", "content": "Name an animal, a city, a colour and a number, each chosen at random."}]
MAX_NEW_TOKENS = 24
SAMPLED = Sampling(max_tokens=MAX_NEW_TOKENS, temperature=1.0, top_p=1.0, seed=0)
GREEDY = Sampling(max_tokens=MAX_NEW_TOKENS, temperature=0.0, top_p=1.0, seed=0)
# by request name, hot at temperature 1 and cold at 0; the names are part of the ids in journals on disk
SEEDS = {"hot": 1, "hot again": 1, "hot otherwise": 2, "cold": 3, "cold again": 4}
MAX_ROUNDS = 3  # of requests that failed by chance
DESCRIPTIONS = {
    "no_logprobs": "returns no log-probability for each chosen token",
    "no_seed": "gives other responses to the same request and seed, or the same whatever the seed",
    "no_temperature": "responds alike at temperatures 1 and 0, or not always alike at 0",
    "no_usage": "does not report the tokens used",
}


def probe_requests(teacher: ApiTeacher, log_probs: bool) -> dict[str, Request]:
    """The five requests by name. Two of them differ in their name only, and should have equal responses."""
    depends = ["probe", teacher.base_url, teacher.model, teacher.extra_body, log_probs]
    return {name: Request(value_hash([*depends, name])[:32], MESSAGES, seed) for name, seed in SEEDS.items()}


def probe_completions(teacher: ApiTeacher, journal: Journal, log_probs: bool) -> dict[str, Completion]:
    """The completions of the probe's requests in the journal, by request name."""
    requests = probe_requests(teacher, log_probs)
    return {name: journal.latest[item.id] for name, item in requests.items() if item.id in journal.completed}


def known_capabilities(teacher: ApiTeacher, journal: Journal) -> dict[str, bool] | None:
    """The teacher's capabilities by the journal's completions; None before the probe."""
    for log_probs in (True, False):
        completions = probe_completions(teacher, journal, log_probs)
        if len(completions) == len(SEEDS):
            return capabilities_from(completions) | {"accepts_logprobs": log_probs}
    return None


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


def probe(teacher: ApiTeacher, key: str, budget: Budget, journal: Journal) -> dict[str, bool]:
    """The capabilities, after sending the requests that the journal lacks. Raises UserError if these fail."""
    known = known_capabilities(teacher, journal)
    if known is not None:
        return known
    for log_probs in (True, False):
        requests = probe_requests(teacher, log_probs)
        for _ in range(MAX_ROUNDS):
            for sampling, prefix in ((SAMPLED, "hot"), (GREEDY, "cold")):
                todo = [
                    item
                    for name, item in requests.items()
                    if name.startswith(prefix) and item.id not in journal.completed
                ]
                if todo:
                    with tqdm(total=len(todo), desc=f"{teacher.name}: capabilities", leave=False) as bar:
                        live.complete(QueryJob(teacher, key, sampling, log_probs, budget, journal, bar), todo)
            known = known_capabilities(teacher, journal)
            if known is not None:
                return known
            failures = [journal.latest[item.id].error for item in requests.values() if item.id not in journal.completed]
            if any(error and error["class"] in ("http_400", "http_422") for error in failures):
                break
    raise UserError(
        f"teacher {teacher.name!r} ({teacher.base_url}) must respond to the requests that test its capabilities, got "
        f"{failures[0]}. Fix the server or the teacher's params and run again. Nothing else was sent."
    )


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
