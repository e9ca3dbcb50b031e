"""What an API teacher can do, from five requests: servers drop parameters that they do not know in silence."""

from collections.abc import Iterable, Mapping

from tqdm import tqdm

from distill.core.errors import UserError
from distill.core.files import value_hash
from distill.generation.api import live
from distill.generation.api.client import Job
from distill.generation.budget import Budget
from distill.generation.completions import Answer, Request
from distill.generation.journal import Journal
from distill.modeling.sampling import Sampling
from distill.params.teachers import ApiTeacher

MESSAGES = [{"role": "user", "content": "Name an animal, a city, a colour and a number, each chosen at random."}]
TOKENS = 24
HOT = Sampling(max_tokens=TOKENS, temperature=1.0, top_p=1.0, seed=0)
COLD = Sampling(max_tokens=TOKENS, temperature=0.0, top_p=1.0, seed=0)
SEEDS = {"hot": 1, "hot again": 1, "hot otherwise": 2, "cold": 3, "cold again": 4}
ROUNDS = 3  # of asking anew what failed by chance
LACKS = {
    "no_logprobs": "returns no log-probability for each chosen token",
    "no_seed": "gives other answers to the same request and seed, or the same whatever the seed",
    "no_temperature": "answers the same at temperature 1 as at 0, or not always the same at 0",
    "no_usage": "does not report the tokens used",
}


def requests(teacher: ApiTeacher, log_probs: bool) -> dict[str, Request]:
    """The five by name. Two differ in name alone, to be answered alike."""
    who = ["probe", teacher.base_url, teacher.model, teacher.extra_body, log_probs]
    return {name: Request(value_hash([*who, name])[:32], MESSAGES, seed) for name, seed in SEEDS.items()}


def answers(teacher: ApiTeacher, journal: Journal, log_probs: bool) -> dict[str, Answer]:
    """The answers to the probe's requests that the journal has."""
    asked = requests(teacher, log_probs)
    return {name: journal.latest[item.id] for name, item in asked.items() if item.id in journal.answered}


def facts(teacher: ApiTeacher, journal: Journal) -> dict[str, bool] | None:
    """What the teacher does, by the answers in the journal; None before it was probed."""
    for log_probs in (True, False):
        found = answers(teacher, journal, log_probs)
        if len(found) == len(SEEDS):
            return judged(found) | {"accepts_logprobs": log_probs}
    return None


def judged(found: Mapping[str, Answer]) -> dict[str, bool]:
    """What five answers show."""
    text = {name: answer.response for name, answer in found.items()}
    return {
        "logprobs": all(answer.logprobs or answer.margins for answer in found.values()),
        "chosen_token_scored": all(answer.logprobs for answer in found.values()),
        "seed_repeats": text["hot"] == text["hot again"] != text["hot otherwise"],
        "temperature_matters": text["cold"] == text["cold again"]
        and any(text[name] != text["cold"] for name in ("hot", "hot otherwise")),
        "usage": all(answer.usage for answer in found.values()),
    }


def lacks(found: Mapping[str, bool]) -> list[str]:
    """What the teacher does not do, as rows name it."""
    can = {
        "no_logprobs": found["logprobs"] and found["chosen_token_scored"],
        "no_seed": found["seed_repeats"],
        "no_temperature": found["temperature_matters"],
        "no_usage": found["usage"],
    }
    return [name for name, does in can.items() if not does]


def run(teacher: ApiTeacher, key: str, budget: Budget, journal: Journal) -> dict[str, bool]:
    """The facts, after asking what the journal does not know yet. Raises UserError where it cannot be asked."""
    known = facts(teacher, journal)
    if known is not None:
        return known
    for log_probs in (True, False):
        for _ in range(ROUNDS):
            for sampling, part in ((HOT, "hot"), (COLD, "cold")):
                asked = {name: item for name, item in requests(teacher, log_probs).items() if name.startswith(part)}
                todo = [item for item in asked.values() if item.id not in journal.answered]
                if todo:
                    with tqdm(total=len(todo), desc=f"{teacher.name}: what it can do", leave=False) as bar:
                        live.answer(Job(teacher, key, sampling, log_probs, budget, journal, bar), todo)
            known = facts(teacher, journal)
            if known is not None:
                return known
            failures = [
                journal.latest[item.id].error
                for item in requests(teacher, log_probs).values()
                if item.id not in journal.answered
            ]
            if any(error and error["class"] in ("http_400", "http_422") for error in failures):
                break
    raise UserError(
        f"teacher {teacher.name!r} ({teacher.base_url}) does not answer the requests that find out what it can do: "
        f"{failures[0]}. Nothing else was sent; mend the server or the teacher's params and run again."
    )


def required(teacher: ApiTeacher, found: Mapping[str, bool], needs: Iterable[str]) -> list[str]:
    """What the experiment needs and the teacher lacks. Raises UserError where params do not take that."""
    missing = [name for name in lacks(found) if name.removeprefix("no_") in needs]
    if missing and teacher.on_missing == "fail":
        raise UserError(
            f"teacher {teacher.name!r} ({teacher.base_url}) "
            + "; it ".join(LACKS[name] for name in missing)
            + f". generate.required_capabilities has {', '.join(name.removeprefix('no_') for name in missing)}. Choose "
            "another server or teacher, remove it from generate.required_capabilities, or set `on_missing: degrade` to "
            "mark the rows."
        )
    return missing
