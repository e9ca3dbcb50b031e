"""Rows of data/raw/responses.jsonl: of teachers, of the aggregator, and with the judge's scores."""

import itertools
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from distill.core.files import Row
from distill.core.response_row import Failure, Message, ResponseRow, Usage
from distill.generation.aggregator import Fusion
from distill.generation.completions import Completion, Request
from distill.generation.prompts import Prompt
from distill.generation.query import QueryResult

FUSED = ":fused"  # suffix of the aggregator's name in rows of fused responses; no teacher's name has a colon


@dataclass(frozen=True)
class TeacherRows:
    """The rows of all teachers, in order of prompt, teacher and sample.

    `requests` are by teacher, prompt id and sample; `results` by teacher. Each iteration reads the completions from
    the journals one by one, so memory does not grow with them.
    """

    prompts: list[Prompt]
    requests: Mapping[tuple[str, str, int], Request]
    results: Mapping[str, QueryResult]
    num_samples: int

    def __iter__(self) -> Iterator[Row]:
        names = sorted(self.results)
        for prompt in self.prompts:
            for name, sample in itertools.product(names, range(self.num_samples)):
                request = self.requests.get((name, prompt["id"], sample))
                if request is not None:
                    result = self.results[name]
                    yield response_row(prompt, name, sample, result[request.id], result.missing_capabilities)


def response_row(
    prompt: Prompt, teacher: str, sample: int, completion: Completion, missing_capabilities: list[str]
) -> Row:
    """The row of a completion. It does not depend on when or in which order completions arrived."""
    error = None if completion.error is None else Failure.model_validate(completion.error)
    unscored = error is None and "no_logprobs" not in missing_capabilities and completion.logprobs is None
    row = ResponseRow(
        id=f"{prompt['id']}@{teacher}" + (f"/{sample}" if sample else ""),
        prompt_id=prompt["id"],
        topic=prompt["topic"],
        teacher=teacher,
        sample=sample,
        messages=[Message(**message) for message in prompt["messages"]],
        response=completion.response.strip(),
        finish_reason=completion.finish_reason,  # type: ignore[arg-type]  # checked by the model
        logprobs=completion.logprobs,
        entropies=completion.entropies,
        margins=completion.margins,
        usage=None if completion.usage is None else Usage(**completion.usage),
        degraded=missing_capabilities + ["no_logprobs"] * unscored,
        error=error,
        label_log_probs=completion.label_log_probs,
        label=None if completion.label_log_probs is None else prompt.get("label"),
    )
    return row.to_json()


def with_fused(rows: Iterable[Row], fusion: Fusion) -> Iterator[Row]:
    """The rows with the aggregator's fused responses, in order of prompt, teacher and sample."""
    aggregator, missing = f"{fusion.call.teacher.name}{FUSED}", fusion.call.result.missing_capabilities
    for prompt_id, group in itertools.groupby(rows, key=lambda row: row["prompt_id"]):
        prompt_rows = list(group)
        if prompt_id in fusion.sources:
            prompt = {"id": prompt_id, "topic": prompt_rows[0]["topic"], "messages": prompt_rows[0]["messages"]}
            fused = response_row(prompt, aggregator, 0, fusion.call[prompt_id], missing)
            prompt_rows.append({**fused, "fused_from": fusion.sources[prompt_id]})
        yield from sorted(prompt_rows, key=lambda row: (row["teacher"], row["sample"]))


def with_scores(rows: Iterable[Row], scores: Mapping[str, float | None]) -> Iterator[Row]:
    """The rows with the judge's scores by row id."""
    for row in rows:
        yield {**row, "judge_score": scores.get(row["id"])}
