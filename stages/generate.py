"""Query each teacher with its prompts: `python -m stages.generate`; with --dry-run print the cost, send nothing.

Reads  the prompts that params name, params data_seed, runtime, teachers, generate
Writes data/raw/responses.jsonl, metrics/generate.json; journals in .distill/journal,
       metrics/environment/generate.json
"""

import argparse
import os
from pathlib import Path

from distill.core.errors import run_main
from distill.core.files import write_json, write_rows
from distill.core.home import home
from distill.generation.auxiliary import AuxiliaryCall, add_auxiliary_usage, call_auxiliary
from distill.generation.completions import Completion, Request
from distill.generation.dry_run import DryRun
from distill.generation.mixture import mix_responses
from distill.generation.prompts import Prompt, check_labels, divide_prompts, from_folder, from_jsonl, with_context
from distill.generation.query import QueryResult, query, require_local_prompts
from distill.generation.requests import QueryContext, build_request
from distill.generation.rows import TeacherRows
from distill.generation.self_instruct import self_instruct
from distill.generation.teacher_journals import remaining_budget
from distill.generation.usage import count_usage, usage_lines
from distill.modeling import environment
from distill.modeling.sampling import Sampling
from distill.modeling.templates import Messages
from distill.params.generate import Generate, Prompts, SelfInstruct
from distill.params.loading import load_params
from distill.params.schema import Params
from distill.params.teachers import Teacher

RESPONSES = Path("data/raw/responses.jsonl")
METRICS = Path("metrics/generate.json")


def query_context(params: Params, journals: Path, dry_run: DryRun | None) -> QueryContext:
    """Settings of this run for all teachers."""
    generate = params.generate
    budget = remaining_budget(generate.budget_usd, params.teachers, journals)
    options = (tuple(generate.required_capabilities), budget, dry_run, generate.max_failed_fraction)
    return QueryContext(params.runtime, generate.batch_size, os.environ, journals, *options, generate.batch_tokens)


def read_prompts(source: Prompts) -> list[Prompt]:
    """The prompts by id, from the source in params."""
    if source.source == "jsonl":
        return from_jsonl(source)
    if source.source == "folder":
        return from_folder(source)
    from distill.generation import hub_prompts  # takes a second to import, and files do not need it

    prompts, skipped = hub_prompts.from_dataset(source)
    reasons = hub_prompts.skipped_rows(skipped)
    print(f"{source.name}: {len(prompts)} prompts; {skipped.total()} rows skipped: {reasons}")
    return prompts


def write_more_prompts(
    prompts: list[Prompt], settings: SelfInstruct, teacher: Teacher, seed: int, context: QueryContext
) -> tuple[list[Prompt], list[AuxiliaryCall]]:
    """The prompts with those that the teacher wrote from them, and its call of each round."""
    sampling = Sampling(
        max_tokens=settings.max_new_tokens, temperature=settings.sampling_temperature, top_p=settings.top_p, seed=seed
    )
    calls: list[AuxiliaryCall] = []

    def query_teacher(requests: dict[str, Messages]) -> list[Completion]:
        calls.append(call_auxiliary("self_instruct", teacher, requests, sampling, context))
        return [calls[-1][name] for name in requests]

    result, counts = self_instruct(prompts, settings, seed, query_teacher)
    if context.dry_run is None:
        print(f"{teacher.name} wrote prompts: {', '.join(f'{name} {count}' for name, count in counts.items())}")
    return result, calls


def response_sampling(generate: Generate, seed: int) -> Sampling:
    """The sampling parameters of all responses."""
    return Sampling(
        max_tokens=generate.max_new_tokens,
        temperature=generate.sampling_temperature,
        top_p=generate.top_p,
        seed=seed,
        labels=tuple(generate.class_labels or ()),
    )


def query_teachers(prompts: list[Prompt], params: Params, sampling: Sampling, context: QueryContext) -> TeacherRows:
    """The rows of all teachers, each queried with its prompts."""
    prompts_of_teacher = divide_prompts(prompts, params.teachers, sampling.seed)
    requests: dict[tuple[str, str, int], Request] = {}
    results: dict[str, QueryResult] = {}
    for teacher in params.teachers:
        teacher_requests = {
            (teacher.name, prompt["id"], sample): build_request(
                teacher, sampling, context, prompt["id"], prompt["messages"], sample
            )
            for prompt in prompts_of_teacher[teacher.name]
            for sample in range(params.generate.num_samples)
        }
        requests |= teacher_requests
        results[teacher.name] = query(teacher, list(teacher_requests.values()), sampling, context)
    return TeacherRows(prompts, requests, results, params.generate.num_samples)


def write_metrics(params: Params, responses: TeacherRows, calls: list[AuxiliaryCall], spent: float) -> None:
    """Writes metrics and environment, and prints a summary."""
    probes = {name: result.probe for name, result in responses.results.items()}
    metrics = add_auxiliary_usage(count_usage(responses, params.teachers, probes), calls)
    write_json(METRICS, metrics)
    environment.record("generate", params.runtime)
    for line in usage_lines(metrics, responses.results):
        print(line)
    if spent:
        print(f"spent so far, by the journals and including what may have been billed: {spent:.4f} USD")


def main() -> None:
    options = argparse.ArgumentParser(prog="python -m stages.generate", description=__doc__)
    options.add_argument("--dry-run", action="store_true", help="print requests, tokens and cost, and send nothing")
    params = load_params()
    generate, seed = params.generate, params.data_seed
    journals = home(os.environ, Path.cwd()) / "journal"
    num_new_prompts = generate.self_instruct.examples_per_request if generate.self_instruct else 1
    dry_run = DryRun(journals, num_new_prompts) if options.parse_args().dry_run else None
    context = query_context(params, journals, dry_run)
    teachers = {teacher.name: teacher for teacher in params.teachers}
    prompts = read_prompts(generate.prompts)
    calls: list[AuxiliaryCall] = []
    if generate.self_instruct is not None:
        writer = teachers[generate.self_instruct.teacher]
        prompts, calls = write_more_prompts(prompts, generate.self_instruct, writer, seed, context)
    if generate.class_labels is not None:
        check_labels(prompts, generate.class_labels)
    prompts = [with_context(prompt, generate.system_prompt, generate.few_shot) for prompt in prompts]
    require_local_prompts(params.teachers, [prompt["messages"] for prompt in prompts])
    sampling = response_sampling(generate, seed)
    responses = query_teachers(prompts, params, sampling, context)
    rows, mixture_calls = mix_responses(responses, generate.mixture, teachers, sampling, context)
    if dry_run is not None:
        print(dry_run.table(params.teachers, context.budget))
        return
    write_rows(RESPONSES, rows)
    write_metrics(params, responses, [*calls, *mixture_calls], context.budget.spent)


if __name__ == "__main__":
    run_main(main, os.environ)
