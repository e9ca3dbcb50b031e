"""Asks every teacher its prompts: `python -m stages.generate`; with --estimate says what that takes, and asks nothing.

Reads  the prompts that params name, params seed, runtime, teachers, generate
Writes data/raw/responses.jsonl, metrics/generate.json; journals in .distill/journal,
       metrics/environment/generate.json
"""

import argparse
import hashlib
import itertools
import os
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from distill.core.errors import UserError, run_main
from distill.core.files import write_json, write_rows
from distill.core.home import home
from distill.generation.aggregator import fused
from distill.generation.auxiliary import Help, helped, with_help
from distill.generation.budget import cost
from distill.generation.completions import Answer
from distill.generation.estimate import Forecast
from distill.generation.journal import TOKENS
from distill.generation.judge import judged
from distill.generation.prompts import Prompt, dressed, from_folder, from_jsonl, require_labels
from distill.generation.query import Setup, ask, budget, request
from distill.generation.self_instruct import grown
from distill.modeling import environment
from distill.modeling.chat import Messages
from distill.modeling.sampling import Sampling
from distill.params import loading as params_file
from distill.params.generate import Generate, Mixture, Prompts, SelfInstruct
from distill.params.teachers import Teacher

RESPONSES = Path("data/raw/responses.jsonl")
METRICS = Path("metrics/generate.json")
FUSED = ":fused"  # added to the aggregator's name for what it makes of others' answers; no teacher's name has a colon

Rows = Callable[[], Iterator[dict[str, Any]]]  # in order of prompt, teacher and sample; each call reads them anew


def read_prompts(source: Prompts) -> list[Prompt]:
    """The prompts by id, from where params say."""
    if source.source == "jsonl":
        return from_jsonl(source)
    if source.source == "folder":
        return from_folder(source)
    from distill.generation.hub_prompts import from_dataset  # takes a second to import, and files need none of it

    prompts, passed_over = from_dataset(source)
    print(f"{source.name}: {len(prompts)} prompts; {passed_over} rows without one or with an earlier one's passed over")
    return prompts


def divide(prompts: list[dict[str, Any]], teachers: list[Teacher], seed: int) -> dict[str, list[dict[str, Any]]]:
    """The prompts of each teacher by name: all for a share of 1, else its own stretch of a seeded hash order."""
    places = {row["id"]: _unit(f"{seed}/{row['id']}") for row in prompts}
    result: dict[str, list[dict[str, Any]]] = {}
    start = 0.0
    for teacher in teachers:
        if teacher.prompt_fraction == 1:
            result[teacher.name] = prompts
            continue
        end = start + teacher.prompt_fraction
        result[teacher.name] = [row for row in prompts if start <= places[row["id"]] < end]
        start = end
    return result


def sampling(generate: Generate, seed: int) -> Sampling:
    """How every teacher is asked to sample."""
    return Sampling(
        max_tokens=generate.max_new_tokens,
        temperature=generate.sampling_temperature,
        top_p=generate.top_p,
        seed=seed,
        labels=tuple(generate.class_labels or ()),
    )


def row(prompt: Prompt, teacher: str, sample: int, answer: Answer, degraded: list[str]) -> dict[str, Any]:
    """One line of data/raw/responses.jsonl; nothing of it depends on when or in which order answers came."""
    error = None if answer.error is None else {key: answer.error[key] for key in ("class", "message")}
    unscored = error is None and "no_logprobs" not in degraded and answer.logprobs is None
    return {
        "id": f"{prompt['id']}@{teacher}" + (f"/{sample}" if sample else ""),
        "prompt_id": prompt["id"],
        "topic": prompt["topic"],
        "teacher": teacher,
        "sample": sample,
        "messages": prompt["messages"],
        "response": answer.response.strip(),
        "finish_reason": answer.finish_reason,
        "logprobs": answer.logprobs,
        "entropies": answer.entropies,
        "margins": answer.margins,
        "usage": answer.usage,
        "degraded": degraded + ["no_logprobs"] * unscored,
        "error": error,
        "judge_score": None,
        "fused_from": [],
    } | labelled(prompt, answer)


def labelled(prompt: Prompt, answer: Answer) -> dict[str, Any]:
    """The fields that a row has only where it was answered by a label: all labels' log-probabilities, the right one."""
    if answer.label_log_probs is None:
        return {}
    return {"label_log_probs": answer.label_log_probs} | {key: prompt[key] for key in ("label",) if key in prompt}


def more_prompts(
    prompts: list[Prompt], grow: SelfInstruct, teacher: Teacher, seed: int, setup: Setup
) -> tuple[list[Prompt], list[Help]]:
    """The prompts and those that the teacher wrote from them, and its help, round by round."""
    how = Sampling(max_tokens=grow.max_new_tokens, temperature=grow.sampling_temperature, top_p=grow.top_p, seed=seed)
    helps = []

    def asker(named: dict[str, Messages]) -> list[Answer]:
        helps.append(helped("grow", teacher, named, how, setup))
        return [helps[-1][name] for name in named]

    result, counts = grown(prompts, grow, seed, asker)
    if setup.forecast is None:
        print(f"{teacher.name} wrote prompts: {', '.join(f'{name} {count}' for name, count in counts.items())}")
    return result, helps


def mixed(
    answered: Rows, mixture: Mixture, teachers: dict[str, Teacher], how: Sampling, setup: Setup
) -> tuple[Rows, list[Help]]:
    """The rows with what the aggregator makes of them and the judge's scores, and the help of both.

    Both are asked prompt by prompt or row by row: a failure of one teacher touches no other prompt's rows.
    """
    helps: list[Help] = []
    scores: dict[str, float | None] = {}
    sources: dict[str, list[str]] = {}
    if mixture.aggregator is not None:
        sources, fusion = fused(answered(), teachers[mixture.aggregator], how, setup)
        helps.append(fusion)

    def rows() -> Iterator[dict[str, Any]]:
        for prompt_id, group in itertools.groupby(answered(), key=lambda item: item["prompt_id"]):
            found = list(group)
            if prompt_id in sources:
                prompt = {"id": prompt_id, "topic": found[0]["topic"], "messages": found[0]["messages"]}
                name = f"{mixture.aggregator}{FUSED}"
                made = row(prompt, name, 0, fusion[prompt_id], fusion.asked.degraded)
                found.append({**made, "fused_from": sources[prompt_id]})
            for item in sorted(found, key=lambda item: (item["teacher"], item["sample"])):
                yield {**item, "judge_score": scores.get(item["id"])}

    if mixture.judge is not None:
        scores, judging = judged(rows(), teachers[mixture.judge], how.seed, setup)
        helps.append(judging)
        unrated = sum(score is None for score in scores.values())
        if mixture.policy == "best_of_n" and unrated == len(scores):
            raise UserError(
                f"generate.mixture: teacher {mixture.judge!r} as the judge rated none of {unrated} answers, so that "
                "none is best. Name a judge that follows instructions, or another policy; all answers so far are kept."
            )
        if setup.forecast is None:
            print(f"{mixture.judge} as the judge gave no rating for {unrated} of {len(scores)} answers")
    return rows, helps


def summary(rows: Iterable[dict[str, Any]], teachers: Iterable[Teacher], probes: dict[str, Any]) -> dict[str, Any]:
    """Requests, answers, failures by class, tokens, cost and abilities by teacher; the cost has the probe's."""
    result: dict[str, Any] = {
        teacher.name: {"requests": 0, "answered": 0, "failed": {}} | dict.fromkeys((*TOKENS, "cost_usd"), 0)
        for teacher in teachers
    }
    for item in rows:
        counts = result[item["teacher"]]
        counts["requests"] += 1
        if item["error"] is None:
            counts["answered"] += 1
        else:
            kind = item["error"]["class"]
            counts["failed"][kind] = counts["failed"].get(kind, 0) + 1
        for key in TOKENS:
            counts[key] += (item["usage"] or {}).get(key, 0)
    for teacher in teachers:
        counts, found = result[teacher.name], probes[teacher.name]
        counts["failed"] = dict(sorted(counts["failed"].items()))
        if teacher.kind == "openai":
            tokens = {key: counts[key] + (found or {}).get(key, 0) for key in TOKENS}
            counts["cost_usd"] = None if teacher.price is None else round(cost(teacher.price, tokens), 6)
        counts["probe"] = found
    return result


def _unit(text: str) -> float:
    """A number in [0, 1) that depends on the text alone."""
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") / 2**64


def main() -> None:
    options = argparse.ArgumentParser(prog="python -m stages.generate", description=__doc__)
    options.add_argument("--estimate", action="store_true", help="print requests, tokens and cost, and send nothing")
    only_estimate = options.parse_args().estimate
    params = params_file.load()
    generate, seed = params.generate, params.seed
    journals = home(os.environ, Path.cwd()) / "journal"
    money = budget(generate.budget_usd, params.teachers, journals)
    forecast = (
        Forecast(journals, generate.self_instruct.examples_per_request if generate.self_instruct else 1)
        if only_estimate
        else None
    )
    setup = Setup(
        params.runtime,
        generate.batch_size,
        os.environ,
        journals,
        tuple(generate.required_capabilities),
        money,
        forecast,
    )
    how = sampling(generate, seed)
    teachers = {teacher.name: teacher for teacher in params.teachers}
    prompts = read_prompts(generate.prompts)
    helps: list[Help] = []
    if generate.self_instruct is not None:
        prompts, helps = more_prompts(
            prompts, generate.self_instruct, teachers[generate.self_instruct.teacher], seed, setup
        )
    if generate.class_labels is not None:
        require_labels(prompts, generate.class_labels)
    prompts = [dressed(prompt, generate.system_prompt, generate.few_shot) for prompt in prompts]
    parts = divide(prompts, params.teachers, seed)
    samples = range(generate.num_samples)
    requests = {
        (teacher.name, prompt["id"], sample): request(teacher, how, setup, prompt["id"], prompt["messages"], sample)
        for teacher in params.teachers
        for prompt in parts[teacher.name]
        for sample in samples
    }
    mine = {
        teacher.name: [item for (name, *_), item in requests.items() if name == teacher.name]
        for teacher in params.teachers
    }
    asked = {teacher.name: ask(teacher, mine[teacher.name], how, setup) for teacher in params.teachers}

    def answered() -> Iterator[dict[str, Any]]:
        """Read from the journals one by one, so that memory does not grow with answers."""
        names = sorted(asked)
        for prompt in prompts:
            for name, sample in itertools.product(names, samples):
                item = requests.get((name, prompt["id"], sample))
                if item is not None:
                    yield row(prompt, name, sample, asked[name].answers[item.id], asked[name].degraded)

    rows, more = mixed(answered, generate.mixture, teachers, how, setup)
    if forecast is not None:
        print(forecast.table(params.teachers, money))
        return
    write_rows(RESPONSES, rows())
    metrics = summary(answered(), params.teachers, {name: part.probe for name, part in asked.items()})
    metrics = with_help(metrics, [*helps, *more])
    write_json(METRICS, metrics)
    environment.record("generate", params.runtime)
    for name, counts in metrics.items():
        failed = sum(counts["failed"].values())
        print(f"{name}: {counts['answered']} answered, {failed} failed {counts['failed'] or ''}".rstrip())
        if failed:
            print("  failures are rows with their reason; clean drops them, and the next generate asks them again")
        if asked[name].degraded:
            print(f"  its rows are marked: {', '.join(asked[name].degraded)}")
    if money.spent:
        print(f"paid so far, by the journals and with what may have been billed unseen: {money.spent:.4f} USD")


if __name__ == "__main__":
    run_main(main)
