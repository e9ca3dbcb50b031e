"""Rate each response from 1 to 10 with a teacher as the judge (single-answer grading, Zheng et al. 2023)."""

import re
from collections.abc import Iterable

from distill.core.files import Row
from distill.generation.auxiliary import AuxiliaryCall, call_auxiliary
from distill.generation.requests import QueryContext
from distill.modeling.sampling import Sampling
from distill.modeling.templates import Messages
from distill.params.teachers import Teacher

MIN_RATING, MAX_RATING = 1.0, 10.0
MAX_REPLY_TOKENS = 16  # enough for the requested reply; a longer one is no rating
TASK = (
    "Act as an impartial judge. Rate how well the answer below serves the user: is it correct, relevant, complete "
    "and clear? 1 is useless, 10 is perfect. Reply with the rating in double brackets and nothing else, for example: "
    "Rating: [[5]]"
)
BRACKETS = re.compile(r"\[\[\s*(\d+(?:\.\d+)?)\s*\]\]")
BARE = re.compile(r"(?:rating:?\s*)?(\d+(?:\.\d+)?)(?:\s*/\s*10)?\.?", re.IGNORECASE)


def rate_responses(
    rows: Iterable[Row], judge: Teacher, seed: int, context: QueryContext
) -> tuple[dict[str, float | None], AuxiliaryCall]:
    """The judge's score of each row by its id, and the judge's call.

    The judge does not see failed and empty responses, and responds greedily. A failed request or a reply without a
    rating gives None.
    """
    sampling = Sampling(max_tokens=MAX_REPLY_TOKENS, temperature=0.0, top_p=1.0, seed=seed)
    prompts = {row["id"]: rating_messages(row) for row in rows if row["response"] and not row["error"]}
    call = call_auxiliary("judge", judge, prompts, sampling, context)
    return {name: parse_rating(call[name].response) for name in prompts}, call


def rating_messages(row: Row) -> Messages:
    """The judge's messages about a row: the conversation, then the response."""
    turns = "\n\n".join(f"[{turn['role']}]\n{turn['content']}" for turn in row["messages"])
    content = f"{TASK}\n\n{turns}\n\n[answer to rate]\n{row['response']}\n[end of answer]"
    return [{"role": "user", "content": content}]


def parse_rating(reply: str) -> float | None:
    """The rating in a judge's reply: one number in double brackets, or a reply that is a number and nothing else.

    None for several numbers, for one outside 1 to 10, and for anything else: no number is guessed from a sentence.
    """
    numbers = BRACKETS.findall(reply)
    if not numbers and (bare := BARE.fullmatch(reply.strip())):
        numbers = [bare[1]]
    if len(numbers) != 1 or not MIN_RATING <= float(numbers[0]) <= MAX_RATING:
        return None
    return float(numbers[0])
