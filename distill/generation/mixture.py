"""Several responses to a prompt: query the aggregator and the judge."""

from collections.abc import Iterable, Iterator
from functools import partial

from distill.core.errors import UserError
from distill.core.files import Row
from distill.generation.aggregator import fuse
from distill.generation.auxiliary import AuxiliaryCall
from distill.generation.judge import rate_responses
from distill.generation.requests import QueryContext
from distill.generation.rows import with_fused, with_scores
from distill.modeling.sampling import Sampling
from distill.params.generate import Mixture
from distill.params.teachers import Teacher


def mix_responses(
    rows: Iterable[Row], mixture: Mixture, teachers: dict[str, Teacher], sampling: Sampling, context: QueryContext
) -> tuple[Iterator[Row], list[AuxiliaryCall]]:
    """The rows with fused responses and judge scores, and the calls of aggregator and judge.

    `rows` are iterated several times. Each request is about one prompt or row: a failure affects no other prompt.
    Raises UserError if policy best_of_n has no rating at all.
    """
    calls: list[AuxiliaryCall] = []
    scores: dict[str, float | None] = {}
    all_rows = partial(iter, rows)
    if mixture.aggregator is not None:
        fusion = fuse(rows, teachers[mixture.aggregator], sampling, context)
        calls.append(fusion.call)
        all_rows = partial(with_fused, rows, fusion)
    if mixture.judge is not None:
        scores, call = rate_responses(all_rows(), teachers[mixture.judge], sampling.seed, context)
        calls.append(call)
        num_unrated = sum(score is None for score in scores.values())
        if mixture.policy == "best_of_n" and num_unrated == len(scores):
            raise UserError(
                f"generate.mixture: judge {mixture.judge!r} must rate responses for policy best_of_n, got no rating "
                f"for {num_unrated} responses. Name a judge that follows instructions, or another policy. All "
                "responses so far are kept."
            )
        if context.dry_run is None:
            print(f"judge {mixture.judge} gave no rating for {num_unrated} of {len(scores)} responses")
    return with_scores(all_rows(), scores), calls
